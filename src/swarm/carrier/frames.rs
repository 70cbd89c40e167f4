//! Datagrams on a stream: a length (u16, big endian), then as many bytes.
//!
//! A frame of length zero carries nothing and means that the peer has lost its place: the stream ends.

/// The longest frame there is: its length, and the longest datagram.
const MAX_FRAME: usize = OVERHEAD + u16::MAX as usize;

/// The room for what was read and is not complete yet. It starts small, because most carriers idle, and
/// grows while reads fill it: two of the longest frames let a busy carrier read many datagrams at once.
const FIRST_ROOM: usize = 16 << 10;
const MOST_ROOM: usize = 2 * MAX_FRAME;

/// The peer sent a frame of length zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame on the carrier has no content")]
pub struct EmptyFrame;

/// Bytes that a frame has beyond its datagram.
pub const OVERHEAD: usize = 2;

/// Appends the frame of `datagram` to `stream`. The caller checked the length.
pub fn encode(datagram: &[u8], stream: &mut Vec<u8>) {
    debug_assert!(fits(datagram));
    stream.extend_from_slice(&(datagram.len() as u16).to_be_bytes());
    stream.extend_from_slice(datagram);
}

/// Whether `datagram` can be sent in a frame.
pub fn fits(datagram: &[u8]) -> bool {
    (1..=usize::from(u16::MAX)).contains(&datagram.len())
}

/// Datagrams that arrived together, in the order in which they were sent. None is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// The datagrams.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (frame, behind) = split(rest)?;
            rest = behind;
            Some(frame)
        })
    }
}

/// The first frame's datagram and what comes behind it; none if it is not complete.
fn split(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = stream.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

/// Finds the frames in what arrives.
pub struct Decoder {
    room: Vec<u8>,
    filled: usize,
}

impl Decoder {
    /// Before anything arrived.
    pub fn new() -> Self {
        Self {
            room: vec![0; FIRST_ROOM],
            filled: 0,
        }
    }

    /// Where the next bytes belong; never empty. [`Decoder::advance`] tells how many came.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.room[self.filled..]
    }

    /// Takes the frames that the `read` new bytes complete, if any.
    pub fn advance(&mut self, read: usize) -> Result<Option<Frames>, EmptyFrame> {
        self.filled = (self.filled + read).min(self.room.len());
        let is_full = self.filled == self.room.len();
        let mut rest = &self.room[..self.filled];
        while let Some((frame, behind)) = split(rest) {
            if frame.is_empty() {
                return Err(EmptyFrame);
            }
            rest = behind;
        }
        let complete = self.filled - rest.len();
        let frames = (complete > 0).then(|| Frames(self.room[..complete].to_vec()));
        self.room.copy_within(complete..self.filled, 0);
        self.filled -= complete;
        // At most one incomplete frame is left: with the most room there is always some for the next read.
        if is_full && self.room.len() < MOST_ROOM {
            self.room.resize((self.room.len() * 2).min(MOST_ROOM), 0);
        }
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `stream` in reads of at most `step` bytes.
    fn decode(stream: &[u8], step: usize) -> Result<Vec<Vec<u8>>, EmptyFrame> {
        let mut decoder = Decoder::new();
        let mut frames = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let room = decoder.room();
            assert!(!room.is_empty(), "no room for the next read");
            let read = rest.len().min(room.len()).min(step);
            room[..read].copy_from_slice(&rest[..read]);
            rest = &rest[read..];
            let complete = decoder.advance(read)?.unwrap_or_default();
            frames.extend(complete.iter().map(<[u8]>::to_vec));
        }
        Ok(frames)
    }

    #[test]
    fn the_longest_datagram_passes_whatever_lies_before_it() {
        let datagrams = [vec![1; 3], vec![2; 65535], vec![3; 65535], vec![4; 1]];
        let mut stream = Vec::new();
        for datagram in &datagrams {
            encode(datagram, &mut stream);
        }
        assert_eq!(decode(&stream, usize::MAX).unwrap(), datagrams);
    }

    #[test]
    fn an_empty_frame_ends_the_stream() {
        assert_eq!(decode(&[0, 1, 7, 0, 0], usize::MAX), Err(EmptyFrame));
    }

    #[test]
    fn room_grows_only_to_its_bound() {
        let mut decoder = Decoder::new();
        for _ in 0..64 {
            let room = decoder.room().len();
            decoder.room().fill(0xff); // frames of 65535 bytes
            decoder.advance(room).unwrap();
        }
        assert_eq!(decoder.room.len(), MOST_ROOM);
    }

    #[test]
    fn datagrams_that_have_no_frame_are_told_apart() {
        assert!(!fits(&[]));
        assert!(fits(&[0; 1]) && fits(&vec![0; 65535]));
        assert!(!fits(&vec![0; 65536]));
    }

    proptest! {
        #[test]
        fn every_datagram_comes_out_as_it_went_in(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 0..40),
            step in 1..5000_usize,
        ) {
            let mut stream = Vec::new();
            for datagram in &datagrams {
                encode(datagram, &mut stream);
            }
            prop_assert_eq!(decode(&stream, step), Ok(datagrams));
        }

        #[test]
        fn garbage_never_panics(
            stream in prop::collection::vec(any::<u8>(), 0..200_000),
            step in 1..70_000_usize,
        ) {
            let frames = decode(&stream, step).unwrap_or_default();
            prop_assert!(frames.iter().all(|frame| !frame.is_empty()));
        }
    }
}
