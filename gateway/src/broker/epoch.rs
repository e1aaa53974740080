//! What the text of an epoch says: `<random>` when the stream began anew, `<random>.<offset>.<random of the life before>` when
//! it went on with the messages of the life before, up to that offset.
//!
//! The second is how a stream goes on whose last messages Redis lost before anybody was told that they were accepted: whoever had
//! no more than what is left has missed nothing.

/// The offset up to which a stream has the same messages in both lives; none when they have nothing in common. Only one life
/// back is known.
pub(super) fn shared(epoch: &str, other: &str) -> Option<u64> {
    if epoch == other {
        return Some(u64::MAX);
    }
    let mut parts = epoch.split('.').skip(1);
    let (offset, before) = (parts.next()?, parts.next()?);
    let own = other.split('.').next()?;
    (before == own).then(|| offset.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_went_on_says_with_what_and_how_far() {
        assert_eq!(shared("aa", "aa"), Some(u64::MAX));
        assert_eq!(shared("bb", "aa"), None);
        assert_eq!(shared("bb.7.aa", "aa"), Some(7));
        assert_eq!(shared("cc.9.bb", "bb.7.aa"), Some(9));
        assert_eq!(shared("cc.9.bb", "aa"), None, "one life back");
        assert_eq!(shared("aa", "bb.7.aa"), None, "not the other way round");
        for nonsense in ["", ".", "..", "bb.x.aa", "bb.7"] {
            assert_eq!(shared(nonsense, "aa"), None, "{nonsense}");
        }
    }
}
