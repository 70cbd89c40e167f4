//! One thing that this node offers: how it is kept, and how it is kept going.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use hivevpn_core::{
    membership::Name,
    policy::{Protocol, Selector, Traffic},
    registry::{Health, Kind, Load, OpenAi, Service, State, Transport},
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{oneshot, watch},
    time::Instant,
};

use super::{
    Snapshot, Told,
    door::{Door, Way},
    hatch::Hatch,
    probe::{self, Finding},
    room::Room,
    scope::Scope,
    sockets::{Refused, Sockets},
    span,
    standing::Standing,
};
use crate::{
    control::admin::Sealed,
    event_loop::Local,
    http::{ApiKey, Front, Ledger, Limits},
    mailbox,
};

/// How often it is looked at while nobody doubts that it answers.
const PROBE_PERIOD: Duration = Duration::from_secs(30);
/// A look takes no longer: a server that swaps its model in takes a while.
const LOOK: Duration = Duration::from_secs(10);
/// What the registry has not taken is offered to it again after this.
const PUBLISH_RETRY: Duration = Duration::from_secs(10);
/// How busy it is is told no more often.
const LOAD_PERIOD: Duration = Duration::from_secs(1);

/// What survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where it listens on this machine.
    pub target: SocketAddr,
    /// What speaks there.
    #[serde(with = "spelt")]
    pub kind: Kind,
    /// The port on the overlay.
    pub port: u16,
    /// Who may reach it; everyone, if empty.
    #[serde(with = "spelt_each")]
    pub to: BTreeSet<Selector>,
    /// When it is over, in seconds since 1970.
    pub end: Option<u64>,
    /// A sentence for people.
    pub description: Option<String>,
    /// Words to find it by.
    pub tags: BTreeSet<String>,
    /// What a model server asks for: members need not know it.
    pub api_key: Option<Sealed>,
    /// It listens on all addresses of this machine and is reached without us.
    pub is_everywhere: bool,
}

impl Kept {
    /// What the policy calls it.
    pub fn traffic(&self) -> Traffic {
        let protocol = match self.kind.transport() {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        Traffic::new(protocol, self.port)
    }

    /// What stands before it, if it is HTTP that can be read.
    pub fn front(
        &self,
        name: &Name,
        snapshots: &watch::Receiver<Snapshot>,
        limits: &Limits,
        ledger: &Ledger,
    ) -> Option<Front> {
        let key = self.api_key().and_then(ApiKey::new);
        self.kind.is_plain_http().then(|| {
            let (name, kind, limits) = (name.clone(), self.kind.clone(), limits.clone());
            let (snapshots, ledger) = (snapshots.clone(), ledger.clone());
            Front::new(name, self.target, kind, snapshots, limits, key, ledger)
        })
    }

    fn api_key(&self) -> Option<&str> {
        let key = self.api_key.as_ref()?;
        std::str::from_utf8(&key.0).ok()
    }

    /// Looks at it, no longer than `limit`.
    pub async fn probe(&self, limit: Duration) -> Finding {
        probe::probe(self.target, &self.kind, self.api_key(), limit).await
    }
}

/// Its sockets.
pub enum Opened {
    /// For connections.
    Tcp(Sockets<TcpListener>),
    /// For datagrams.
    Udp(Sockets<Arc<UdpSocket>>),
}

impl Opened {
    /// Those that it takes; none is open yet.
    pub fn new(kept: &Kept) -> Self {
        let Kept {
            target,
            port,
            is_everywhere,
            ..
        } = *kept;
        match kept.kind.transport() {
            Transport::Tcp => Self::Tcp(Sockets::new(port, target, is_everywhere)),
            Transport::Udp => Self::Udp(Sockets::new(port, target, is_everywhere)),
        }
    }

    /// Opens them. Says what was refused, and whether what is exposed is there by itself.
    pub fn fit(&mut self, scope: &Scope) -> (Vec<Refused>, bool) {
        let addresses = scope.addresses();
        match self {
            Self::Tcp(sockets) => (sockets.fit(&addresses), sockets.serve_themselves()),
            Self::Udp(sockets) => (sockets.fit(&addresses), sockets.serve_themselves()),
        }
    }
}

/// What it takes to keep it going.
pub struct Exposure {
    /// What it is called.
    pub name: Name,
    /// What it is.
    pub kept: Kept,
    /// How it stands.
    pub standing: Arc<Standing>,
    /// Members.
    pub snapshots: watch::Receiver<Snapshot>,
    /// To the data loop.
    pub to_loop: mailbox::Sender<Local>,
    /// For connections.
    pub room: Room,
    /// What stands before it, if it is HTTP that can be read.
    pub front: Option<Front>,
}

/// What the registry has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    state: State,
    openai: Option<OpenAi>,
    health: Health,
}

impl Exposure {
    /// Who may use it.
    pub fn scope(&self) -> Scope {
        Scope::new(self.kept.to.clone(), self.snapshots.clone())
    }

    /// Carries what members send, looks after it and tells the others, until its lifetime is over.
    pub async fn run(self, opened: Opened, published: Option<Published>) {
        let scope = self.scope();
        let way = match &self.front {
            Some(front) => Way::Http(front.clone()),
            None => Way::Plain(self.kept.target),
        };
        let (target, standing, room) = (self.kept.target, self.standing.clone(), self.room.clone());
        let carrying = async {
            match opened {
                Opened::Tcp(sockets) => {
                    Door::new(sockets, scope, way, standing, room).serve().await
                }
                Opened::Udp(sockets) => Hatch::new(sockets, scope, target, standing).serve().await,
            }
        };
        tokio::select! {
            () = carrying => {}
            () = self.look_after(published) => {}
            () = self.tell_load() => {}
            () = self.hear_doubts() => {}
            () = span::over(self.kept.end) => {}
        }
    }

    /// Looks at it from time to time, and publishes what has changed.
    async fn look_after(&self, mut published: Option<Published>) {
        // Whoever exposed it has looked at it.
        let mut pause = match &published {
            Some(_) => PROBE_PERIOD,
            None => Duration::ZERO,
        };
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(looked + pause) => {}
                () = self.standing.doubted(looked) => {}
            }
            looked = Instant::now();
            let finding = self.kept.probe(LOOK).await;
            pause = match self.publish(&finding, published.as_ref()).await {
                Ok(now) => {
                    published = Some(now);
                    PROBE_PERIOD
                }
                Err(reason) => {
                    tracing::debug!(service = %self.name, %reason, "not published");
                    PUBLISH_RETRY
                }
            };
        }
    }

    /// Tells everybody what was found, if it is news.
    pub async fn publish(
        &self,
        finding: &Finding,
        before: Option<&Published>,
    ) -> Result<Published, String> {
        self.standing.found(finding);
        if let (Some(front), Some(slots)) = (&self.front, finding.slots) {
            front.set_slots(slots);
        }
        let is_known = |before: &&Published| {
            let openai = self.openai(finding, Some(before));
            before.state == finding.state && before.openai == openai
        };
        if let Some(before) = before.filter(is_known) {
            return Ok(before.clone());
        }
        let health = match before.filter(|before| before.state == finding.state) {
            Some(before) => before.health,
            None => Health {
                state: finding.state,
                since: crate::event_loop::now().unix,
            },
        };
        let now = Published {
            state: finding.state,
            openai: self.openai(finding, before),
            health,
        };
        let outcome = self.tell(self.service(&now)).await;
        self.standing.published(&outcome);
        outcome.map(|()| now)
    }

    /// The models: those known last, while the server does not say.
    fn openai(&self, finding: &Finding, before: Option<&Published>) -> Option<OpenAi> {
        let known = finding.openai.clone();
        known
            .or_else(|| before.and_then(|before| before.openai.clone()))
            .or_else(|| (self.kept.kind == Kind::OpenAi).then(OpenAi::default))
    }

    fn service(&self, now: &Published) -> Service {
        let kind = self.kept.kind.clone();
        Service {
            transport: kind.transport(),
            port: self.kept.port,
            path: (kind == Kind::OpenAi).then(|| "/v1".to_owned()),
            kind,
            to: self.kept.to.clone(),
            health: now.health,
            description: self.kept.description.clone(),
            tags: self.kept.tags.clone(),
            openai: now.openai.clone(),
        }
    }

    async fn tell(&self, service: Service) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let told = Told::Publish {
            name: self.name.clone(),
            service: Box::new(service),
            answer,
        };
        let stopping = || "the daemon is stopping".to_owned();
        let sent = self.to_loop.send(Local::Services(told)).await;
        sent.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Tells how busy it is, if somebody counts.
    async fn tell_load(&self) {
        let Some(front) = &self.front else {
            return std::future::pending().await;
        };
        let mut told = Load::default();
        let mut tick = tokio::time::interval(LOAD_PERIOD);
        loop {
            tick.tick().await;
            let load = front.load();
            if load == told {
                continue;
            }
            told = load;
            let name = self.name.clone();
            let news = Local::Services(Told::Load { name, load });
            // The loop has ended, and so shall we.
            let _ = self.to_loop.send(news).await;
        }
    }

    /// What stands before it could not reach it.
    async fn hear_doubts(&self) {
        let Some(front) = &self.front else {
            return std::future::pending().await;
        };
        loop {
            front.unreachable().await;
            self.standing.doubt();
        }
    }
}

/// What has one spelling is kept as text.
mod spelt {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(Error::custom)
    }
}

/// And sets of it.
mod spelt_each {
    use std::{collections::BTreeSet, fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<T: Display, S: Serializer>(
        values: &BTreeSet<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<BTreeSet<T>, D::Error>
    where
        T: FromStr<Err: Display> + Ord,
        D: Deserializer<'de>,
    {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let values = texts.iter().map(|text| text.parse());
        values.collect::<Result<_, _>>().map_err(Error::custom)
    }
}
