//! Reused memory for whole batches: sealed datagrams on their way out, opened packets on their way in.
//!
//! Sealing and opening write straight into a batch, so that nothing is allocated for a packet and the
//! shell can hand runs of equal datagrams to the kernel in one call.

use crate::{path::Path, relay};

/// More datagrams than this never share one run (the kernel's limit for one segmented send).
const MAX_RUN: usize = 64;
/// One run never exceeds what one UDP send can carry.
const MAX_RUN_BYTES: usize = 65_000;

/// Neighbouring datagrams to one path that have the same length; only the last may be shorter.
#[derive(Debug, Clone, Copy)]
struct Run {
    path: Path,
    start: usize,
    end: usize,
    segment: usize,
    count: usize,
    open: bool,
}

/// Sealed datagrams, in the order in which they must leave.
#[derive(Debug, Default)]
pub struct DatagramBatch {
    buffer: Vec<u8>,
    end: usize,
    runs: Vec<Run>,
}

impl DatagramBatch {
    /// Room for one datagram of at most `length` bytes to `path`, behind what the path wants before each. Call
    /// [`commit`](Self::commit) with what was used.
    pub fn slot(&mut self, path: Path, length: usize) -> &mut [u8] {
        let start = self.end + header_length(path);
        let needed = start + length;
        if self.buffer.len() < needed {
            self.buffer.resize(needed.next_power_of_two(), 0);
        }
        if let Path::Relayed { channel, .. } = path {
            self.buffer[self.end..start].copy_from_slice(&channel.header());
        }
        &mut self.buffer[start..needed]
    }

    /// Adds the first `length` bytes of the last slot, which was for `path`, as a datagram.
    pub fn commit(&mut self, path: Path, length: usize) {
        let length = header_length(path) + length;
        let start = self.end;
        self.end += length;
        if let Some(run) = self.runs.last_mut()
            && run.open
            && run.path == path
            && length <= run.segment
            && run.count < MAX_RUN
            && self.end - run.start <= MAX_RUN_BYTES
        {
            run.end = self.end;
            run.count += 1;
            run.open = length == run.segment;
            return;
        }
        self.runs.push(Run {
            path,
            start,
            end: self.end,
            segment: length,
            count: 1,
            open: true,
        });
    }

    /// What comes next begins a run of its own: the network may treat the datagrams of a run as one, and lose them all
    /// when one is too big.
    pub fn end_run(&mut self) {
        if let Some(run) = self.runs.last_mut() {
            run.open = false;
        }
    }

    /// Adds a copy of a finished datagram.
    pub fn push(&mut self, path: Path, datagram: &[u8]) {
        self.slot(path, datagram.len()).copy_from_slice(datagram);
        self.commit(path, datagram.len());
    }

    /// Each run: where to, its bytes, and the length of its datagrams (the last may be shorter).
    pub fn runs(&self) -> impl Iterator<Item = (Path, &[u8], usize)> {
        self.runs
            .iter()
            .map(|run| (run.path, &self.buffer[run.start..run.end], run.segment))
    }

    /// Each datagram by itself.
    pub fn datagrams(&self) -> impl Iterator<Item = (Path, &[u8])> {
        self.runs().flat_map(|(path, bytes, segment)| {
            bytes.chunks(segment).map(move |datagram| (path, datagram))
        })
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.end
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Forgets all datagrams and keeps the memory.
    pub fn clear(&mut self) {
        self.end = 0;
        self.runs.clear();
    }
}

/// Bytes that a path wants before each datagram.
fn header_length(path: Path) -> usize {
    match path {
        Path::Relayed { .. } => relay::HEADER,
        Path::Direct(_) | Path::Carrier(_) => 0,
    }
}

/// Opened packets, in the order in which they arrived.
#[derive(Debug, Default)]
pub struct PacketBatch {
    buffer: Vec<u8>,
    end: usize,
    packets: Vec<(usize, usize)>,
}

impl PacketBatch {
    /// Room to open a datagram of `length` bytes into.
    pub fn slot(&mut self, length: usize) -> &mut [u8] {
        let needed = self.end + length;
        if self.buffer.len() < needed {
            self.buffer.resize(needed.next_power_of_two(), 0);
        }
        &mut self.buffer[self.end..needed]
    }

    /// Adds the first `length` bytes of the last slot as a packet.
    pub fn commit(&mut self, length: usize) {
        self.packets.push((self.end, self.end + length));
        self.end += length;
    }

    /// Adds a copy of a packet.
    pub fn push(&mut self, packet: &[u8]) {
        self.slot(packet.len()).copy_from_slice(packet);
        self.commit(packet.len());
    }

    /// The packets.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.packets
            .iter()
            .map(|&(start, end)| &self.buffer[start..end])
    }

    /// How many packets wait.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Forgets all packets and keeps the memory.
    pub fn clear(&mut self) {
        self.end = 0;
        self.packets.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connection::ConnectionId;

    fn to(number: u64) -> Path {
        Path::Carrier(ConnectionId(number))
    }

    #[test]
    fn a_shorter_datagram_ends_its_run() {
        let mut batch = DatagramBatch::default();
        for length in [100, 100, 60, 100] {
            batch.push(to(1), &vec![0; length]);
        }
        let runs: Vec<_> = batch
            .runs()
            .map(|(_, bytes, segment)| (bytes.len(), segment))
            .collect();
        assert_eq!(runs, [(260, 100), (100, 100)]);
    }

    #[test]
    fn each_datagram_to_a_relay_bears_its_channel() {
        let mut batch = DatagramBatch::default();
        let channel = relay::Channel(7);
        let via = "192.0.2.1:7777".parse().unwrap();
        for datagram in [b"one", b"two"] {
            batch.push(Path::Relayed { via, channel }, datagram);
        }
        let came: Vec<_> = batch.datagrams().map(|(_, d)| relay::split(d)).collect();
        assert_eq!(
            came,
            [Some((channel, &b"one"[..])), Some((channel, &b"two"[..]))]
        );
        assert_eq!(batch.runs().count(), 1);
    }

    #[test]
    fn a_run_that_was_ended_takes_no_more() {
        let mut batch = DatagramBatch::default();
        batch.push(to(1), &[0; 100]);
        batch.end_run();
        batch.push(to(1), &[0; 100]);
        assert_eq!(batch.runs().count(), 2);
    }

    proptest! {
        #[test]
        fn batching_loses_reorders_and_merges_nothing(
            sent in proptest::collection::vec((0..3_u64, proptest::collection::vec(any::<u8>(), 1..200)), 0..300)
        ) {
            let mut batch = DatagramBatch::default();
            for (path, datagram) in &sent {
                batch.push(to(*path), datagram);
            }
            let came: Vec<_> = batch.datagrams().map(|(path, bytes)| (path, bytes.to_vec())).collect();
            let expected: Vec<_> = sent.into_iter().map(|(path, bytes)| (to(path), bytes)).collect();
            prop_assert_eq!(came, expected);
            for (_, bytes, segment) in batch.runs() {
                prop_assert!(bytes.len() <= MAX_RUN_BYTES && bytes.len().div_ceil(segment) <= MAX_RUN);
            }
        }
    }
}
