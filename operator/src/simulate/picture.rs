//! A run as a picture: pods by state, sockets of each pod, and closes per second, above one axis of time.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::record::Frame;
use super::report::{grouped, span, title};
use super::scenario::Run;
use super::time::{Millis, SECOND};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const HEIGHT: f64 = 190.0;
const TOP: f64 = 46.0;
const GAP: f64 = 48.0;
/// Columns of the picture; a longer run is thinned out.
const COLUMNS: usize = 400;
/// Pods that are drawn one by one; of more, the fullest, the middle and the emptiest.
const LINES: usize = 64;
/// Pods by state, from below.
const STATES: [(&str, &str); 5] = [
    ("serving", "#2e7d32"),
    ("starting", "#90caf9"),
    ("cordoned", "#fdd835"),
    ("draining", "#ef6c00"),
    ("terminating", "#9e9e9e"),
];
/// Where the states of [`STATES`] are in a frame.
const ORDER: [usize; 5] = [1, 0, 2, 3, 4];
/// A colour for each revision.
const REVISIONS: [&str; 4] = ["#1565c0", "#d81b60", "#00897b", "#6a1b9a"];
/// Closes by drains, by SIGTERM, and cut.
const CLOSES: [(&str, &str); 3] = [("drained", "#ef6c00"), ("SIGTERM", "#757575"), ("cut", "#c62828")];

/// One panel: where it is, and what its edges mean.
struct Panel {
    top: f64,
    from: Millis,
    until: Millis,
    most: f64,
}

impl Panel {
    fn x(&self, at: Millis) -> f64 {
        let share = at.saturating_sub(self.from) as f64 / (self.until - self.from).max(1) as f64;
        share.mul_add(WIDTH - LEFT - RIGHT, LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        (value / self.most).mul_add(-HEIGHT, self.top + HEIGHT)
    }

    fn point(&self, at: Millis, value: f64) -> String {
        format!("{:.1},{:.1}", self.x(at), self.y(value))
    }
}

/// The picture as SVG.
pub(crate) fn picture(run: &Run) -> String {
    let frames = &run.world.record.frames;
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
        return String::new();
    };
    let panel = |number: usize, most: f64| Panel {
        top: (HEIGHT + GAP).mul_add(number as f64, TOP),
        from: first.at,
        until: last.at,
        most: nice(most),
    };
    let step = frames.len().div_ceil(COLUMNS).max(1);
    let thinned: Vec<&Frame> = frames.iter().step_by(step).collect();
    let height = (HEIGHT + GAP).mul_add(3.0, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} \
         {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"18\" font-size=\"15\">{}</text>\n",
        escaped(&title(run))
    );
    pods(
        &mut svg,
        run,
        &thinned,
        &panel(0, most(frames, |frame| frame.pods.iter().sum::<u32>().into())),
    );
    sockets(
        &mut svg,
        run,
        &thinned,
        &panel(1, run.world.record.fullest as f64),
    );
    closes(&mut svg, run, frames, step, &|most| panel(2, most));
    svg + "</svg>\n"
}

fn most(frames: &[Frame], value: impl Fn(&Frame) -> f64) -> f64 {
    frames.iter().map(value).fold(1.0, f64::max)
}

/// The next round number.
fn nice(most: f64) -> f64 {
    let scale = 10_f64.powf(most.max(1.0).log10().floor());
    [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|factor| factor * scale)
        .find(|candidate| *candidate >= most)
        .unwrap_or(most)
}

/// Axes, heading, and the moment at which it happened.
fn axes(svg: &mut String, run: &Run, panel: &Panel, heading: &str) {
    let (right, bottom) = (WIDTH - RIGHT, panel.top + HEIGHT);
    line(
        svg,
        &format!(
            "<text x=\"{LEFT}\" y=\"{:.0}\" font-weight=\"bold\">{heading}</text>",
            panel.top - 6.0
        ),
    );
    for quarter in 0..=4 {
        let value = panel.most * f64::from(quarter) / 4.0;
        let y = panel.y(value);
        let label = if panel.most < 8.0 && value.fract() != 0.0 {
            format!("{value:.1}")
        } else {
            grouped(value.round() as u64)
        };
        line(
            svg,
            &format!(
                "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#e0e0e0\"/><text x=\"{:.0}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{label}</text>",
                LEFT - 6.0,
                y + 4.0
            ),
        );
    }
    let every = step_of_time(panel.until - panel.from);
    let mut at = 0;
    while run.began + at <= panel.until {
        let x = panel.x(run.began + at);
        line(
            svg,
            &format!(
                "<path d=\"M{x:.1} {bottom}v4\" stroke=\"black\"/><text x=\"{x:.1}\" y=\"{:.0}\" \
                 text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                span(at)
            ),
        );
        at += every;
    }
    let x = panel.x(run.began);
    line(
        svg,
        &format!(
            "<path d=\"M{x:.1} {:.0}V{bottom}\" stroke=\"black\" stroke-dasharray=\"2 3\"/>",
            panel.top
        ),
    );
}

fn step_of_time(length: Millis) -> Millis {
    [10, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600]
        .into_iter()
        .map(|seconds| seconds * SECOND)
        .find(|step| length / step <= 8)
        .unwrap_or(7_200 * SECOND)
}

fn legend(svg: &mut String, panel: &Panel, row: usize, name: &str, colour: &str) {
    let (x, y) = (
        WIDTH - RIGHT + 12.0,
        18.0_f64.mul_add(row as f64, panel.top + 4.0),
    );
    line(
        svg,
        &format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" \
             y=\"{}\">{}</text>",
            x + 18.0,
            y + 9.0,
            escaped(name)
        ),
    );
}

/// Pods by state, one above the other.
fn pods(svg: &mut String, run: &Run, frames: &[&Frame], panel: &Panel) {
    axes(svg, run, panel, "pods by state");
    let mut below = vec![0.0; frames.len()];
    for (row, (name, colour)) in STATES.iter().enumerate() {
        let above: Vec<f64> = frames
            .iter()
            .zip(&below)
            .map(|(frame, below)| below + f64::from(frame.pods[ORDER[row]]))
            .collect();
        area(
            svg,
            panel,
            frames.iter().map(|frame| frame.at),
            &below,
            &above,
            colour,
        );
        legend(svg, panel, row, name, colour);
        below = above;
    }
}

fn area(
    svg: &mut String,
    panel: &Panel,
    times: impl DoubleEndedIterator<Item = Millis> + Clone,
    below: &[f64],
    above: &[f64],
    colour: &str,
) {
    if above.iter().zip(below).all(|(above, below)| above <= below) {
        return;
    }
    let up = times
        .clone()
        .zip(above)
        .map(|(at, value)| panel.point(at, *value));
    let back = times
        .rev()
        .zip(below.iter().rev())
        .map(|(at, value)| panel.point(at, *value));
    let points: Vec<_> = up.chain(back).collect();
    line(
        svg,
        &format!("<polygon points=\"{}\" fill=\"{colour}\"/>", points.join(" ")),
    );
}

/// Sockets of each pod, in the colour of its revision.
fn sockets(svg: &mut String, run: &Run, frames: &[&Frame], panel: &Panel) {
    axes(svg, run, panel, "sockets per pod");
    let mut lines: BTreeMap<u32, Vec<(Millis, u32)>> = BTreeMap::new();
    for frame in frames {
        for (gateway, sockets) in &frame.sockets {
            lines.entry(*gateway).or_default().push((frame.at, *sockets));
        }
    }
    if lines.len() > LINES {
        return extremes(svg, frames, panel);
    }
    let mut revisions: Vec<&str> = Vec::new();
    for (gateway, points) in &lines {
        let revision = run.world.gateways[*gateway as usize].revision.as_str();
        if !revisions.contains(&revision) {
            revisions.push(revision);
        }
        let number = revisions.iter().position(|known| *known == revision).unwrap_or(0);
        curve(svg, panel, points, REVISIONS[number % REVISIONS.len()]);
    }
    for (row, revision) in revisions.iter().enumerate() {
        legend(svg, panel, row, revision, REVISIONS[row % REVISIONS.len()]);
    }
}

/// The emptiest, the middle and the fullest pod.
fn extremes(svg: &mut String, frames: &[&Frame], panel: &Panel) {
    for (row, (name, share)) in [("emptiest", 0.0), ("median", 0.5), ("fullest", 1.0)]
        .into_iter()
        .enumerate()
    {
        let of = |frame: &&Frame| {
            let mut sockets: Vec<u32> = frame.sockets.iter().map(|(_, sockets)| *sockets).collect();
            sockets.sort_unstable();
            let index = (sockets.len().saturating_sub(1) as f64 * share) as usize;
            (frame.at, sockets.get(index).copied().unwrap_or(0))
        };
        let points: Vec<_> = frames.iter().map(of).collect();
        curve(svg, panel, &points, REVISIONS[row]);
        legend(svg, panel, row, name, REVISIONS[row]);
    }
}

/// A line; what lies between two equal neighbours is left out.
fn curve(svg: &mut String, panel: &Panel, points: &[(Millis, u32)], colour: &str) {
    let is_bend = |index: usize| {
        let value = |index: usize| points.get(index).map(|(_, value)| *value);
        index == 0 || value(index - 1) != value(index) || value(index + 1) != value(index)
    };
    let bends = points.iter().enumerate().filter(|(index, _)| is_bend(*index));
    let points: Vec<_> = bends
        .map(|(_, (at, value))| panel.point(*at, f64::from(*value)))
        .collect();
    line(
        svg,
        &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>",
            points.join(" ")
        ),
    );
}

/// Closes in each second, the worst of each column, and the budget.
fn closes(svg: &mut String, run: &Run, frames: &[Frame], step: usize, panel: &dyn Fn(f64) -> Panel) {
    let worst = |kind: usize| -> Vec<f64> {
        let of = |column: &[Frame]| column.iter().map(|frame| frame.closed[kind]).max().unwrap_or(0) as f64;
        frames.chunks(step).map(of).collect()
    };
    let times: Vec<Millis> = frames.chunks(step).map(|column| column[0].at).collect();
    let budget = |frame: &Frame| frame.budget as f64;
    let planned = most(frames, |frame| {
        budget(frame).max((frame.closed[0] + frame.closed[1]) as f64)
    });
    let cut = most(frames, |frame| frame.closed[2] as f64);
    // a lost node may cut so many that nothing else could be seen
    let panel = panel((planned * 1.1).max(cut.min(planned * 10.0)));
    axes(svg, run, &panel, "sockets closed per second");
    let mut below = vec![0.0; times.len()];
    for (row, (name, colour)) in CLOSES.iter().enumerate() {
        let above: Vec<f64> = worst(row)
            .iter()
            .zip(&below)
            .map(|(value, below)| (value + below).min(panel.most))
            .collect();
        area(svg, &panel, times.iter().copied(), &below, &above, colour);
        legend(svg, &panel, row, name, colour);
        below = above;
    }
    let points: Vec<_> = frames
        .iter()
        .step_by(step)
        .map(|frame| panel.point(frame.at, budget(frame)))
        .collect();
    line(
        svg,
        &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"black\" stroke-dasharray=\"6 4\"/>",
            points.join(" ")
        ),
    );
    legend(svg, &panel, CLOSES.len(), "budget (dashed)", "black");
}

fn line(svg: &mut String, text: &str) {
    // a String takes everything
    let _ = writeln!(svg, "{text}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
