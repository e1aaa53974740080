//! Horizontal bars: all that the pictures need. Colours are readable on light and dark pages.

use std::fmt::Write as _;

use crate::table::thousands;

const LINE: usize = 26;
const TOP: usize = 40;
const LABELS: usize = 230;
const BARS: f64 = 400.0;
const WIDTH: usize = 740;

/// One picture.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    /// Written after each value.
    pub(crate) unit: &'static str,
    /// Label, value, and whether it is ours.
    pub(crate) bars: Vec<(String, f64, bool)>,
}

impl Chart {
    pub(crate) fn render(&self) -> String {
        let height = TOP + self.bars.len() * LINE + 10;
        let longest = self.bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" role=\"img\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#7d8590\">\n<title>{title}</title>\n\
             <text x=\"10\" y=\"22\" font-size=\"15\" font-weight=\"600\">{title}</text>\n",
            title = escape(self.title),
        );
        for (index, (label, value, ours)) in self.bars.iter().enumerate() {
            let y = TOP + index * LINE;
            let length = if longest > 0.0 {
                value / longest * BARS
            } else {
                0.0
            };
            let colour = if *ours { "#2f81f7" } else { "#8b949e" };
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LABELS}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" rx=\"2\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{} {}</text>",
                LABELS - 8,
                y + 14,
                escape(label),
                length.max(1.0),
                LINE - 7,
                LABELS as f64 + length.max(1.0) + 6.0,
                y + 14,
                short(*value),
                escape(self.unit),
            );
        }
        svg + "</svg>\n"
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    if value >= 100.0 {
        thousands(value)
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_has_the_full_width_and_the_others_their_share() {
        let chart = Chart {
            title: "a < b",
            unit: "/s",
            bars: vec![("one".into(), 2_000.0, false), ("two".into(), 500.0, true)],
        };
        let svg = chart.render();
        assert!(svg.contains("<title>a &lt; b</title>"), "{svg}");
        assert!(
            svg.contains("width=\"400.0\"") && svg.contains("width=\"100.0\""),
            "{svg}"
        );
        assert!(svg.contains("2 000 /s") && svg.contains("500 /s"), "{svg}");
    }
}
