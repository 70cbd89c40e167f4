//! CBOR, as strictly as signed bytes deserve.
//!
//! Objects are maps with integer keys. Before minicbor sees received bytes, a walk over their
//! structure makes sure that there is one way only to read them: lengths are definite, keys are
//! strictly ascending (so none is there twice), nothing follows the one item, nesting is bounded,
//! and nothing occurs but integers, byte strings, text, arrays, maps, booleans and null. Unknown
//! keys are skipped: a later version may add some.

use ipnet::Ipv4Net;
use minicbor::{Decode, Encode};

use super::rejection::Rejection;

/// No signed object comes near this; it bounds what a stranger can make us parse.
pub(super) const MAX_OBJECT: usize = 64 * 1024;

/// Of messages that carry many objects. At about 700 bytes a record it is more than a
/// thousand members at a time.
pub(crate) const MAX_MESSAGE: usize = 1024 * 1024;

/// Our deepest object nests four containers.
const MAX_DEPTH: usize = 8;

const _: () = assert!(MAX_OBJECT <= MAX_MESSAGE);

/// The CBOR encoding of one of our types.
pub(crate) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

/// Reads a signed object or a part of one.
pub(crate) fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, Rejection> {
    decode_within(MAX_OBJECT, bytes)
}

/// Reads a message that carries many objects.
pub(crate) fn decode_message<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, Rejection> {
    decode_within(MAX_MESSAGE, bytes)
}

fn decode_within<T: for<'b> Decode<'b, ()>>(limit: usize, bytes: &[u8]) -> Result<T, Rejection> {
    if bytes.len() > limit {
        return Err(Rejection::TooLarge { limit });
    }
    check_structure(bytes)?;
    minicbor::decode(bytes)
        .map_err(|_| Rejection::Malformed("a field is missing, too large or of the wrong type"))
}

/// The walk of the module's opening words, RFC 8949 section 3 in hand.
fn check_structure(bytes: &[u8]) -> Result<(), Rejection> {
    let mut walk = Walk { rest: bytes };
    walk.item(MAX_DEPTH)?;
    match walk.rest.is_empty() {
        true => Ok(()),
        false => Err(Rejection::Malformed("bytes follow the end")),
    }
}

struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn item(&mut self, depth: usize) -> Result<(), Rejection> {
        let (major, argument) = self.head()?;
        match major {
            0 | 1 => Ok(()),
            2 => self.string(argument).map(|_| ()),
            3 => match std::str::from_utf8(self.string(argument)?) {
                Ok(_) => Ok(()),
                Err(_) => Err(Rejection::Malformed("text that is not UTF-8")),
            },
            // An item takes a byte at least, so a lying count runs out of input, not of time.
            4 => {
                let depth = one_deeper(depth)?;
                (0..argument).try_for_each(|_| self.item(depth))
            }
            5 => {
                let depth = one_deeper(depth)?;
                let mut last = None;
                (0..argument).try_for_each(|_| {
                    let key = self.key()?;
                    if last.replace(key).is_some_and(|last| last >= key) {
                        return Err(Rejection::Malformed("map keys do not ascend"));
                    }
                    self.item(depth)
                })
            }
            7 if (20..=22).contains(&argument) => Ok(()),
            _ => Err(Rejection::Malformed("a type of value that we do not use")),
        }
    }

    fn key(&mut self) -> Result<u64, Rejection> {
        match self.head()? {
            (0, key) => Ok(key),
            _ => Err(Rejection::Malformed("a map key is not a number")),
        }
    }

    /// Major type and argument of the next item.
    fn head(&mut self) -> Result<(u8, u64), Rejection> {
        let [first] = self.take()?;
        let (major, short) = (first >> 5, first & 0x1f);
        let argument = match short {
            0..=23 => u64::from(short),
            // Simple values with an argument and floats have no use here.
            _ if major == 7 => {
                return Err(Rejection::Malformed("a type of value that we do not use"));
            }
            24 => u64::from(u8::from_be_bytes(self.take()?)),
            25 => u64::from(u16::from_be_bytes(self.take()?)),
            26 => u64::from(u32::from_be_bytes(self.take()?)),
            27 => u64::from_be_bytes(self.take()?),
            31 => return Err(Rejection::Malformed("an indefinite length")),
            _ => return Err(Rejection::Malformed("a reserved length")),
        };
        Ok((major, argument))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Rejection> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(TRUNCATED);
        };
        self.rest = rest;
        Ok(*taken)
    }

    fn string(&mut self, len: u64) -> Result<&'a [u8], Rejection> {
        let split = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len));
        let (string, rest) = split.ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(string)
    }
}

const TRUNCATED: Rejection = Rejection::Malformed("it ends too early");

fn one_deeper(depth: usize) -> Result<usize, Rejection> {
    depth
        .checked_sub(1)
        .ok_or(Rejection::Malformed("it is nested too deeply"))
}

/// `#[cbor(with)]`: an IPv4 prefix as `[address, length]`, host bits zero.
pub(super) mod prefix {
    use std::net::Ipv4Addr;

    use minicbor::{
        Decoder, Encoder,
        decode::Error as DecodeError,
        encode::{Error as EncodeError, Write},
    };

    use super::Ipv4Net;

    pub fn encode<C, W: Write>(
        prefix: &Ipv4Net,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.encode((prefix.network(), prefix.prefix_len()))?.ok()
    }

    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Ipv4Net, DecodeError> {
        let (address, length): (Ipv4Addr, u8) = d.decode()?;
        match Ipv4Net::new(address, length) {
            Ok(prefix) if prefix.network() == address => Ok(prefix),
            Ok(_) | Err(_) => Err(DecodeError::message("not a prefix")),
        }
    }
}

/// `#[cbor(with)]`: addresses to dial, as binary multiaddrs.
pub(super) mod addresses {
    use libp2p_core::Multiaddr;
    use minicbor::{
        Decoder, Encoder,
        bytes::ByteSlice,
        decode::Error as DecodeError,
        encode::{Error as EncodeError, Write},
    };

    use crate::membership::descriptor::{MAX_ADDRESS_LEN, MAX_ADDRESSES};

    pub fn encode<C, W: Write>(
        addresses: &[Multiaddr],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.array(addresses.len() as u64)?;
        for address in addresses {
            e.bytes(address.as_ref())?;
        }
        Ok(())
    }

    /// Leaves out what this version cannot read: a newer node may know newer transports.
    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<Multiaddr>, DecodeError> {
        let encoded: Vec<&ByteSlice> = d.decode()?;
        if encoded.len() > MAX_ADDRESSES || encoded.iter().any(|a| a.len() > MAX_ADDRESS_LEN) {
            return Err(DecodeError::message("too many or too long addresses"));
        }
        let readable = encoded
            .into_iter()
            .filter_map(|a| Multiaddr::try_from(a.to_vec()).ok());
        Ok(readable.collect())
    }
}

/// `#[cbor(with)]`: 32 secret bytes.
pub(super) mod secret {
    use minicbor::{
        Decoder, Encoder,
        decode::Error as DecodeError,
        encode::{Error as EncodeError, Write},
    };
    use zeroize::Zeroizing;

    pub fn encode<C, W: Write>(
        secret: &Zeroizing<[u8; 32]>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&**secret)?.ok()
    }

    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Zeroizing<[u8; 32]>, DecodeError> {
        match d.bytes()?.try_into() {
            Ok(secret) => Ok(Zeroizing::new(secret)),
            Err(_) => Err(DecodeError::message("a secret has 32 bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn malformed(bytes: &[u8]) -> &'static str {
        match check_structure(bytes) {
            Err(Rejection::Malformed(why)) => why,
            other => panic!("{bytes:x?}: {other:?}"),
        }
    }

    #[test]
    fn plain_objects_pass() {
        // {0: 1, 1: h'aabb', 2: ["a", true, null], 300: -1}
        let object = b"\xa4\x00\x01\x01\x42\xaa\xbb\x02\x83\x61a\xf5\xf6\x19\x01\x2c\x20";
        assert_eq!(check_structure(object), Ok(()));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        assert_eq!(malformed(b"\xa2\x00\x01\x00\x02"), "map keys do not ascend");
        assert_eq!(malformed(b"\xa2\x01\x01\x00\x02"), "map keys do not ascend");
        assert_eq!(
            malformed(b"\xa2\x01\x01\x18\x01\x02"),
            "map keys do not ascend"
        );
        assert_eq!(malformed(b"\x9f\x01\xff"), "an indefinite length");
        assert_eq!(malformed(b"\xbf\x00\x01\xff"), "an indefinite length");
        assert_eq!(malformed(b"\x01\x01"), "bytes follow the end");
        assert_eq!(malformed(b"\xa1\x61a\x01"), "a map key is not a number");
    }

    #[test]
    fn what_we_do_not_use_is_refused() {
        for bytes in [&b"\xc0\x01"[..], b"\xf9\x3c\x00", b"\xf7", b"\xf8\x20"] {
            assert_eq!(malformed(bytes), "a type of value that we do not use");
        }
        assert_eq!(malformed(b"\x1c"), "a reserved length");
        assert_eq!(malformed(b"\x61\xff"), "text that is not UTF-8");
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bytes in [
            &b""[..],
            b"\x42\xaa",
            b"\x82\x01",
            b"\xa1\x00",
            b"\x19\x01",
            b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(malformed(bytes), "it ends too early");
        }
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |levels: usize| [vec![0x81; levels], vec![0x00]].concat();
        assert_eq!(check_structure(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(malformed(&nested(MAX_DEPTH + 1)), "it is nested too deeply");
        assert_eq!(malformed(&nested(60_000)), "it is nested too deeply");
    }

    #[test]
    fn a_large_object_is_not_even_walked() {
        let bytes = encode(&minicbor::bytes::ByteVec::from(vec![0; MAX_OBJECT]));
        assert_eq!(
            decode::<minicbor::bytes::ByteVec>(&bytes),
            Err(Rejection::TooLarge { limit: MAX_OBJECT })
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check_structure(&bytes);
        }

        /// What the walk accepts, minicbor skips to the very end: both see the same structure.
        #[test]
        fn minicbor_agrees_with_the_walk(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            if check_structure(&bytes).is_ok() {
                let mut decoder = minicbor::Decoder::new(&bytes);
                prop_assert!(decoder.skip().is_ok());
                prop_assert_eq!(decoder.position(), bytes.len());
            }
        }
    }
}
