//! The daemon's end of the control socket: takes a request, puts it to the data loop, returns the answer.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hivevpn_platform::privileges;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::oneshot,
};

use crate::{
    control::{Reply, Request},
    event_loop::Local,
    mailbox,
    roles::{Access, Caller},
};

/// Requests are short; only answers may be long.
const MAX_REQUEST: u64 = 256 << 10;
/// Who connects has its request ready.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// The loop answers at once.
const LOOP_LIMIT: Duration = Duration::from_secs(5);
/// A ping goes through the tunnel.
const PING_LIMIT: Duration = Duration::from_secs(1);
/// The peer's daemon is asked, perhaps through a slow relay.
const BENCH_LIMIT: Duration = Duration::from_secs(8);

/// A member's daemon is asked, which may have to ask another one first.
const ON_LIMIT: Duration = Duration::from_secs(9);
/// A member's daemon is asked, and a token may take a second more.
const REFLECT_LIMIT: Duration = Duration::from_secs(4);

/// A question on its way to the data loop.
#[derive(Debug)]
pub struct Asked {
    /// The question.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Reply>,
}

/// The socket's file: it disappears with this value.
pub struct ControlSocket {
    path: PathBuf,
    listener: Option<UnixListener>,
    access: Arc<Access>,
}

impl ControlSocket {
    /// Binds the socket: open to the group that may ask, if there is one and we may give it away, else to our user. A file
    /// left by a daemon that was killed is replaced; a living daemon is not.
    pub fn bind(path: &Path, access: Access) -> Result<Self> {
        let shown = path.display();
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!(
                "another daemon already answers on {shown}: stop it with 'hivevpn down', or choose another --socket"
            );
        }
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path)
                .with_context(|| format!("cannot remove the stale socket {shown}"))?,
            Ok(_) => bail!("{shown} exists and is no socket: choose another --socket"),
            // Nothing there, or nothing that we may see: binding will tell.
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot create the control socket {shown}"))?;
        let is_given = access
            .group()
            .is_some_and(|group| chown(path, None, Some(group)).is_ok());
        let mode = if is_given { 0o660 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .with_context(|| shown.to_string())?;
        Ok(Self {
            path: path.to_owned(),
            listener: Some(listener),
            access: Arc::new(access),
        })
    }

    /// Who is answered.
    pub fn access(&self) -> Arc<Access> {
        self.access.clone()
    }

    /// Serves requests on the current runtime, until that ends.
    pub fn serve(&mut self, to_loop: mailbox::Sender<Local>) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        let access = self.access.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let (to_loop, access) = (to_loop.clone(), access.clone());
                        tokio::spawn(async move {
                            if let Err(error) = converse(stream, to_loop, &access).await {
                                tracing::debug!(%error, "control connection ended early");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a control connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The state directory may be gone already; there is nothing left to do about it.
        let _ = fs::remove_file(&self.path);
    }
}

async fn converse(
    stream: UnixStream,
    to_loop: mailbox::Sender<Local>,
    access: &Access,
) -> Result<()> {
    let asker = privileges::peer_credentials(&stream)?;
    let (read, mut write) = stream.into_split();
    // Read in any case: who writes to a closed connection would not hear why.
    let mut line = String::new();
    let mut request = BufReader::new(read.take(MAX_REQUEST));
    tokio::time::timeout(REQUEST_LIMIT, request.read_line(&mut line))
        .await
        .context("no request came")??;
    let reply = match access.local(asker) {
        Ok(caller) => match serde_json::from_str(&line) {
            Ok(request) => answer(&caller, request, access, &to_loop).await?,
            Err(error) => Reply::Error(format!(
                "the daemon does not understand the request: {error}"
            )),
        },
        Err(refusal) => Reply::Error(refusal.to_string()),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    Ok(())
}

/// Has a request answered, if its caller may ask it.
async fn answer(
    caller: &Caller,
    request: Request,
    access: &Access,
    to_loop: &mailbox::Sender<Local>,
) -> Result<Reply> {
    let rule = match access.allow(caller, &request, Instant::now()) {
        Ok(rule) => rule,
        Err(refusal) => return Ok(Reply::Error(refusal.to_string())),
    };
    if request == Request::Down {
        access.answered(caller, &rule, &Reply::Ok(().into()));
        to_loop.send(Local::Stop).await?;
        // This connection is closed when everything is undone: that is the answer.
        return Ok(std::future::pending().await);
    }
    let reply = ask_loop(request, to_loop).await?;
    access.answered(caller, &rule, &reply);
    Ok(reply)
}

/// Puts a request to the data loop and waits for the answer, no longer than such a request should take.
pub(crate) async fn ask_loop(request: Request, to_loop: &mailbox::Sender<Local>) -> Result<Reply> {
    let (limit, unanswered) = match &request {
        Request::Ping { peer } => (PING_LIMIT, format!("no answer from {peer}")),
        Request::Bench { peer, .. } => (
            BENCH_LIMIT,
            format!("no answer from {peer} within {} s", BENCH_LIMIT.as_secs()),
        ),
        Request::Clock { peer } | Request::Reflect { peer, .. } => (
            REFLECT_LIMIT,
            format!("no answer from {peer} within {} s", REFLECT_LIMIT.as_secs()),
        ),
        Request::On { peer, .. } | Request::Login { peer, .. } => (
            ON_LIMIT,
            format!("no answer from {peer} within {} s", ON_LIMIT.as_secs()),
        ),
        Request::Logout { .. }
        | Request::Admins
        | Request::Appoint { .. }
        | Request::Dismiss { .. }
        | Request::Why { .. }
        | Request::Status
        | Request::Nodes
        | Request::Invite { .. }
        | Request::SetPassword { .. }
        | Request::Whois { .. }
        | Request::Authorities
        | Request::Delegates
        | Request::Revoked
        | Request::Change(_)
        | Request::Policy(_)
        | Request::Services(_)
        | Request::Dht(_)
        | Request::Id
        | Request::Underlay
        | Request::Down => (LOOP_LIMIT, "the daemon is too busy to answer".to_owned()),
    };
    let (answer, answered) = oneshot::channel();
    to_loop
        .send(Local::Control(Asked { request, answer }))
        .await?;
    Ok(match tokio::time::timeout(limit, answered).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_)) => Reply::Error("the daemon is stopping".to_owned()),
        Err(_) => Reply::Error(unanswered),
    })
}
