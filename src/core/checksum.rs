//! The Internet checksum: the one's complement of the one's complement sum of 16-bit words (RFC 1071).

/// A sum under way. Only the last part may have an odd length.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds big-endian words; an odd last byte counts as the upper half of one.
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let words = bytes.chunks(2).map(|pair| match *pair {
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            [high] => u64::from(high) << 8,
            _ => 0,
        });
        Self(self.0 + words.sum::<u64>())
    }

    /// Adds one word.
    pub fn add_word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// The checksum of everything added.
    pub fn checksum(self) -> u16 {
        !fold(self.0)
    }
}

/// The checksum after one of the summed words changed from `old` to `new` (RFC 1624, equation 3).
pub fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// Corrects the checksum of an IPv4 header with its options, at least 20 bytes.
pub fn write_ipv4_header(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = Sum::default().add_bytes(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Brings the carries back in.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071_comes_out() {
        let sum = Sum::default().add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.checksum(), !0xddf2);
    }

    proptest! {
        #[test]
        fn an_updated_checksum_is_the_one_of_the_changed_words(
            mut words in proptest::collection::vec(any::<u16>(), 1..40),
            at: prop::sample::Index,
            new: u16,
        ) {
            let of = |words: &[u16]| words.iter().fold(Sum::default(), |sum, word| sum.add_word(*word));
            // All-zero words have a sum with two names, which real packets, with a length in the sum, never have.
            prop_assume!(words.iter().any(|word| *word != 0));
            let before = of(&words).checksum();
            let at = at.index(words.len());
            let after = updated(before, words[at], new);
            words[at] = new;
            prop_assert_eq!(of(&words).add_word(after).checksum(), 0);
        }
    }
}
