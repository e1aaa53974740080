//! A count, or a share of the wanted replicas: `3` or `25%`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A count, or a percentage (0–100) of the wanted replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntOrPercent {
    /// That many.
    Count(u32),
    /// That many hundredths.
    Percent(u32),
}

impl IntOrPercent {
    /// How many of `total` that is, a fraction of one counted as one.
    pub fn round_up(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                u32::try_from((u64::from(total) * u64::from(percent)).div_ceil(100)).unwrap_or(u32::MAX)
            }
        }
    }

    /// How many of `total` that is, a fraction of one dropped.
    pub fn round_down(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                u32::try_from(u64::from(total) * u64::from(percent) / 100).unwrap_or(u32::MAX)
            }
        }
    }
}

impl fmt::Display for IntOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The text is neither a count nor a percentage from `0%` to `100%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIntOrPercentError;

impl fmt::Display for ParseIntOrPercentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write a count such as 2, or a percentage from \"0%\" to \"100%\"")
    }
}

impl std::error::Error for ParseIntOrPercentError {}

impl FromStr for IntOrPercent {
    type Err = ParseIntOrPercentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let percent = text.strip_suffix('%').ok_or(ParseIntOrPercentError)?;
        match percent.parse::<u32>() {
            // the same texts as the schema's pattern: no sign, no leading zero
            Ok(value) if value <= 100 && value.to_string() == percent => Ok(Self::Percent(value)),
            _ => Err(ParseIntOrPercentError),
        }
    }
}

impl Serialize for IntOrPercent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrPercent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntOrPercentVisitor)
    }
}

struct IntOrPercentVisitor;

impl Visitor<'_> for IntOrPercentVisitor {
    type Value = IntOrPercent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count or a percentage")
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<IntOrPercent, E> {
        u32::try_from(value).map(IntOrPercent::Count).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<IntOrPercent, E> {
        u32::try_from(value).map(IntOrPercent::Count).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<IntOrPercent, E> {
        value.parse().map_err(E::custom)
    }
}

impl JsonSchema for IntOrPercent {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "IntOrPercent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maximum": 100_000,
            "pattern": "^(0|[1-9][0-9]?|100)%$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stay_and_percentages_round_as_asked() {
        assert_eq!(IntOrPercent::Count(3).round_up(1), 3);
        assert_eq!(IntOrPercent::Percent(25).round_up(5), 2);
        assert_eq!(IntOrPercent::Percent(25).round_down(5), 1);
        assert_eq!(IntOrPercent::Percent(25).round_up(0), 0);
    }

    #[test]
    fn both_forms_survive_a_round_trip_and_nonsense_is_refused() {
        for text in ["3", "\"25%\"", "\"0%\"", "\"100%\""] {
            let value: IntOrPercent = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
        for text in ["\"101%\"", "\"05%\"", "\"3\"", "-1", "\"-1%\"", "1.5", "\"\""] {
            assert!(serde_json::from_str::<IntOrPercent>(text).is_err(), "{text}");
        }
    }
}
