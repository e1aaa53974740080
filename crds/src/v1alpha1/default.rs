//! Default values as functions, which is the form that serde and the schema take them in.

use super::IntOrPercent;

/// True.
pub(super) const fn yes() -> bool {
    true
}

/// The number `N`.
pub(super) const fn int<const N: u32>() -> u32 {
    N
}

/// The port or code `N`.
pub(super) const fn short<const N: u16>() -> u16 {
    N
}

/// The count `N`.
pub(super) const fn count<const N: u32>() -> IntOrPercent {
    IntOrPercent::Count(N)
}

/// `N` per cent.
pub(super) const fn percent<const N: u32>() -> IntOrPercent {
    IntOrPercent::Percent(N)
}
