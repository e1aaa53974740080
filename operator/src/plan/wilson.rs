//! What a share of few events is worth.

/// One-sided quantile of the normal distribution: one chance in two thousand.
const Z: f64 = 3.29;

/// Lower bound of the share behind `found` of `n` (Wilson 1927): three failures of three are no chance, one of three may be.
pub(crate) fn lower_bound(found: f64, n: f64) -> f64 {
    let z2 = Z * Z;
    let middle = found + z2 / (2.0 * n);
    let spread = Z * (found * (1.0 - found) / n + z2 / (4.0 * n * n)).sqrt();
    ((middle - spread) / (1.0 + z2 / n)).max(0.0)
}
