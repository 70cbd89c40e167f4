//! As much of Kademlia's messages (libp2p's `dht.proto`) as a node needs that answers what it likes.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longer than whatever a node sends.
const MAX_MESSAGE: u64 = 1 << 20;

const BYTES: u64 = 2;

/// The kinds of messages that matter here.
pub const PUT: u64 = 0;
pub const GET: u64 = 1;

/// A question, or the answer to one.
#[derive(Debug, Default)]
pub struct Message {
    pub kind: u64,
    pub key: Vec<u8>,
    pub record: Option<Record>,
}

/// What lies under a key.
#[derive(Debug, Default)]
pub struct Record {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

impl Message {
    /// Reads one; none when the other side has said all.
    pub async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let Some(length) = read_number(io).await? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        io.take(length.min(MAX_MESSAGE))
            .read_to_end(&mut bytes)
            .await?;
        Ok(Self::decode(&bytes))
    }

    pub async fn write(&self, io: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let body = self.encode();
        let mut framed = Vec::new();
        put_number(&mut framed, body.len() as u64);
        framed.extend(body);
        io.write_all(&framed).await?;
        io.flush().await
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_number(&mut bytes, 1 << 3);
        put_number(&mut bytes, self.kind);
        put_bytes(&mut bytes, 2, &self.key);
        if let Some(record) = &self.record {
            let mut inner = Vec::new();
            put_bytes(&mut inner, 1, &record.key);
            put_bytes(&mut inner, 2, &record.value);
            put_bytes(&mut bytes, 3, &inner);
        }
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut message = Self::default();
        while !bytes.is_empty() {
            match field(&mut bytes)? {
                (1, Content::Number(kind)) => message.kind = kind,
                (2, Content::Bytes(key)) => message.key = key.to_vec(),
                (3, Content::Bytes(record)) => message.record = Record::decode(record),
                _ => {}
            }
        }
        Some(message)
    }
}

impl Record {
    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut record = Self::default();
        while !bytes.is_empty() {
            match field(&mut bytes)? {
                (1, Content::Bytes(key)) => record.key = key.to_vec(),
                (2, Content::Bytes(value)) => record.value = value.to_vec(),
                _ => {}
            }
        }
        Some(record)
    }
}

enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Content<'a>)> {
    let tag = number(bytes)?;
    let value = number(bytes)?;
    if tag & 7 != BYTES {
        return Some((tag >> 3, Content::Number(value)));
    }
    let (content, rest) = bytes.split_at_checked(usize::try_from(value).ok()?)?;
    *bytes = rest;
    Some((tag >> 3, Content::Bytes(content)))
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

async fn read_number(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<u64>> {
    let mut digits = Vec::new();
    let mut byte = [0x80];
    while byte[0] & 0x80 != 0 {
        if io.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        digits.push(byte[0]);
    }
    Ok(number(&mut &digits[..]))
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_bytes(bytes: &mut Vec<u8>, field: u64, content: &[u8]) {
    put_number(bytes, field << 3 | BYTES);
    put_number(bytes, content.len() as u64);
    bytes.extend(content);
}
