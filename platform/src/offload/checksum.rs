//! The internet checksum (RFC 1071): the ones' complement of a ones' complement sum of 16-bit words.
//!
//! Such a sum comes out the same in any word size and, but for swapped bytes, in any byte order (RFC 1071, sections 2(B)
//! and 2(C)). So bytes are added as they lie in memory, four at a time into lanes of eight that the compiler makes vectors
//! of, and carries wait in the upper halves of the lanes until the end.

/// A sum on its way. Parts may be added in any order as long as all but the last have an even number of bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

/// Bytes added per round, each four to a 64-bit lane of their own.
const ROUND: usize = 32;

impl Sum {
    /// Adds bytes as they are sent.
    #[must_use]
    pub(super) fn add(self, bytes: &[u8]) -> Self {
        let (rounds, rest) = bytes.as_chunks::<ROUND>();
        let mut lanes = [0_u64; ROUND / 4];
        for round in rounds {
            let (words, _) = round.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let (words, rest) = rest.as_chunks::<4>();
        let mut sum = self.0 + lanes.iter().sum::<u64>();
        for word in words {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        // A missing byte counts as zero.
        let last = match *rest {
            [one] => [one, 0, 0, 0],
            [one, two] => [one, two, 0, 0],
            [one, two, three] => [one, two, three, 0],
            _ => [0; 4],
        };
        Self(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds a number that is sent as two bytes.
    #[must_use]
    pub(super) fn add_number(self, number: u16) -> Self {
        Self(self.0 + u64::from(number.to_be()))
    }

    /// The sum in two bytes, as they are sent.
    pub(super) fn folded(self) -> [u8; 2] {
        self.fold().to_ne_bytes()
    }

    /// The checksum, as it is sent.
    pub(super) fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    /// Whether this is the sum of something with a correct checksum in it.
    pub(super) fn is_correct(self) -> bool {
        self.fold() == 0xffff
    }

    fn fold(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sample::checksum as by_definition;
    use super::*;

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let sum = Sum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), [0xdd, 0xf2]);
    }

    #[test]
    fn carries_are_never_lost() {
        let bytes = vec![0xff; 65_535];
        let sum = Sum::default().add(&bytes);
        assert_eq!(sum.checksum(), by_definition(&bytes).to_be_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_sum_up_as_defined(bytes in prop::collection::vec(any::<u8>(), 0..200), split in 0..100_usize) {
            let expected = by_definition(&bytes).to_be_bytes();
            let (head, tail) = bytes.split_at((2 * split).min(bytes.len()));
            prop_assert_eq!(Sum::default().add(&bytes).checksum(), expected);
            prop_assert_eq!(Sum::default().add(head).add(tail).checksum(), expected);
        }

        #[test]
        fn a_number_counts_like_its_two_bytes(number: u16) {
            let (one, other) = (Sum::default().add_number(number), Sum::default().add(&number.to_be_bytes()));
            prop_assert_eq!(one.folded(), other.folded());
        }

        #[test]
        fn bytes_with_their_checksum_are_correct_and_with_another_are_not(
            mut bytes in prop::collection::vec(any::<u8>(), 2..100), wrong in 1..u16::MAX,
        ) {
            bytes[..2].fill(0);
            let right = Sum::default().add(&bytes).checksum();
            bytes[..2].copy_from_slice(&right);
            prop_assert!(Sum::default().add(&bytes).is_correct());
            bytes[..2].copy_from_slice(&u16::from_be_bytes(right).wrapping_add(wrong).to_be_bytes());
            let both_zeros = u16::from_be_bytes(right) == 0 && wrong == 0xffff;
            prop_assert!(both_zeros || !Sum::default().add(&bytes).is_correct());
        }
    }
}
