//! Requests and responses on the wire: a length (u32, big endian), then as many bytes.
//!
//! What the bytes mean is the core's concern. Here they only have a greatest length, so that a peer cannot
//! make us remember more than that. The length comes first because a stream that breaks off may look like one
//! that ends.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};

/// Carries one message each way.
#[derive(Debug, Clone)]
pub struct Codec {
    request_limit: usize,
    response_limit: usize,
}

impl Codec {
    /// Refuses longer messages, in bytes, whether we read or write them.
    pub fn new(request_limit: usize, response_limit: usize) -> Self {
        Self {
            request_limit,
            response_limit,
        }
    }

    async fn read<T: AsyncRead + Unpin + Send>(limit: usize, io: &mut T) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        io.read_exact(&mut length).await?;
        let length = u32::from_be_bytes(length);
        Self::check(length as usize, limit, io::ErrorKind::InvalidData)?;
        // The peer pays for the memory with bytes, not with a promise.
        let mut body = Vec::new();
        io.take(length.into()).read_to_end(&mut body).await?;
        if body.len() < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(body)
    }

    async fn write<T: AsyncWrite + Unpin + Send>(
        limit: usize,
        io: &mut T,
        body: &[u8],
    ) -> io::Result<()> {
        Self::check(body.len(), limit, io::ErrorKind::InvalidInput)?;
        io.write_all(&(body.len() as u32).to_be_bytes()).await?;
        io.write_all(body).await?;
        io.flush().await
    }

    fn check(length: usize, limit: usize, kind: io::ErrorKind) -> io::Result<()> {
        if length > limit {
            let error = format!("a message of this protocol has at most {limit} bytes");
            return Err(io::Error::new(kind, error));
        }
        Ok(())
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Self::read(self.request_limit, io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Self::read(self.response_limit, io).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        body: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Self::write(self.request_limit, io, &body).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        body: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Self::write(self.response_limit, io, &body).await
    }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    fn read(limit: usize, bytes: &[u8]) -> Result<Vec<u8>, io::ErrorKind> {
        let read = block_on(Codec::read(limit, &mut Cursor::new(bytes.to_vec())));
        read.map_err(|error| error.kind())
    }

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let mut sent = Cursor::new(Vec::new());
        block_on(Codec::write(4, &mut sent, b"four")).unwrap();
        assert_eq!(read(4, sent.get_ref()), Ok(b"four".to_vec()));
        assert_eq!(read(4, &[0; 4]), Ok(vec![]));
    }

    #[test]
    fn a_message_longer_than_the_limit_is_not_read() {
        assert_eq!(read(4, b"\0\0\0\x05fives"), Err(io::ErrorKind::InvalidData));
        assert_eq!(read(4, &[0xff; 9]), Err(io::ErrorKind::InvalidData));
    }

    #[test]
    fn a_message_that_breaks_off_is_none() {
        assert_eq!(read(4, b""), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(read(4, b"\0\0\0\x04fou"), Err(io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn we_send_no_message_that_the_peer_must_refuse() {
        let mut sent = Cursor::new(Vec::new());
        let error = block_on(Codec::write(4, &mut sent, b"fives")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(sent.into_inner().is_empty());
    }
}
