//! Two connections made one: bytes of each go into the other.
//!
//! Each direction ends for itself: when one side has sent its last byte the other one learns that, and may go on sending
//! for as long as it likes. An error of one side ends both, and the other side learns it as an error too: a connection
//! that broke must not look like one that ended. Nothing ends because it rests.

use std::{
    cell::RefCell,
    io,
    ops::{Deref, DerefMut},
};

use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

/// Moved at once. What has not fitted into the receiver's socket waits in it, so this is also what a connection whose
/// receiver is slow holds in each direction; one that rests holds nothing.
const CHUNK: usize = 64 << 10;
/// Buffers that wait to be used again.
const SPARE: usize = 16;

/// Carries bytes both ways until both have ended. Dropping the future cuts both connections.
pub async fn join(near: TcpStream, far: TcpStream) -> io::Result<()> {
    let mut pair = Pair {
        near,
        far,
        ended: false,
    };
    pair.near.set_nodelay(true)?;
    pair.far.set_nodelay(true)?;
    let (mut near_read, mut near_write) = pair.near.split();
    let (mut far_read, mut far_write) = pair.far.split();
    tokio::try_join!(
        pour(&mut near_read, &mut far_write),
        pour(&mut far_read, &mut near_write)
    )?;
    pair.ended = true;
    Ok(())
}

/// Ends a connection as a port does that nobody listens on.
pub fn reset(stream: TcpStream) {
    // One that is broken already needs no reset.
    let _ = stream.set_zero_linger();
}

struct Pair {
    near: TcpStream,
    far: TcpStream,
    ended: bool,
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.near.set_zero_linger();
            let _ = self.far.set_zero_linger();
        }
    }
}

async fn pour(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut buffer = Buffer::take();
        match from.try_read(&mut buffer) {
            Ok(0) => return to.shutdown().await,
            Ok(count) => to.write_all(&buffer[..count]).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

thread_local! {
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Room for a chunk, or for any datagram.
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// One that was used before, if there is one.
    pub fn take() -> Self {
        let spare = SPARES.with_borrow_mut(Vec::pop);
        Self(spare.unwrap_or_else(|| vec![0; CHUNK].into()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        SPARES.with_borrow_mut(|spares| {
            if spares.len() < SPARE {
                spares.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    /// Both ends of a connection.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// A client and a server with a joint between them.
    async fn joined() -> (
        TcpStream,
        TcpStream,
        tokio::task::JoinHandle<io::Result<()>>,
    ) {
        let (client, near) = connection().await;
        let (far, server) = connection().await;
        (client, server, tokio::spawn(join(near, far)))
    }

    #[tokio::test]
    async fn an_answer_arrives_after_the_question_has_ended() {
        let (mut client, mut server, joint) = joined().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"question");
        let answer: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let told = answer.clone();
        let telling = tokio::spawn(async move {
            server.write_all(&told).await.unwrap();
        });
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert!(heard == answer);
        telling.await.unwrap();
        joint.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_server_may_end_first_and_go_on_listening() {
        let (mut client, mut server, joint) = joined().await;
        server.write_all(b"banner").await.unwrap();
        server.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"banner");
        client.write_all(b"late").await.unwrap();
        drop(client);
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"late");
        joint.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reset_of_one_side_is_a_reset_for_the_other() {
        for client_breaks in [true, false] {
            let (client, server, joint) = joined().await;
            let (breaking, mut left) = match client_breaks {
                true => (client, server),
                false => (server, client),
            };
            reset(breaking);
            let error = left.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            joint.await.unwrap().unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_joint_that_is_cut_resets_both() {
        let (mut client, mut server, joint) = joined().await;
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        joint.abort();
        for left in [&mut client, &mut server] {
            let error = left.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn a_slow_receiver_makes_the_sender_wait() {
        let (client, server, _joint) = joined().await;
        let block = vec![0; CHUNK];
        let mut sent = 0;
        // Sockets hold some megabytes; what lies between them must not grow.
        let stalled = loop {
            let written = tokio::time::timeout(std::time::Duration::from_secs(1), async {
                client.writable().await?;
                client.try_write(&block)
            })
            .await;
            match written {
                Ok(Ok(count)) => sent += count,
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => break true,
            }
            if sent > 256 << 20 {
                break false;
            }
        };
        assert!(stalled);
        drop(server);
    }
}
