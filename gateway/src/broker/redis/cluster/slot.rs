//! Slots: which of the 16,384 parts of a cluster a name belongs to (Redis Cluster specification, "Key distribution model").

/// Slots of a cluster.
pub(in super::super) const SLOTS: usize = 16_384;

/// CRC-16/XMODEM of every byte.
const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The slot of a key's or a channel's name.
pub(in super::super) fn of(name: &[u8]) -> usize {
    let crc = tag(name).iter().fold(0_u16, |crc, &byte| {
        (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    });
    usize::from(crc) % SLOTS
}

/// What of a name is hashed: the part between the first `{` and the next `}` unless it is empty, else all of it.
fn tag(name: &[u8]) -> &[u8] {
    let Some(open) = name.iter().position(|&byte| byte == b'{') else {
        return name;
    };
    let rest = &name[open + 1..];
    match rest.iter().position(|&byte| byte == b'}') {
        None | Some(0) => name,
        Some(close) => &rest[..close],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // the specification's own example, and what CLUSTER KEYSLOT of Redis 7.0 says
        for (name, slot) in [
            ("123456789", 0x31C3),
            ("foo", 12_182),
            ("bar", 5_061),
            ("", 0),
            ("{user1000}.following", 3_443),
            ("user1000", 3_443),
            ("foo{}{bar}", 8_363),
            ("foo{{bar}}zap", 4_015),
            ("foo{bar}{zap}", 5_061),
            ("wsfleet:0:room:{lobby}", 10_294),
            ("lobby", 10_294),
        ] {
            assert_eq!(of(name.as_bytes()), slot, "{name}");
        }
    }
}
