//! A port on the home router that leads to us: asked for with PCP or NAT-PMP, else with UPnP.
//!
//! A router that translates addresses lets nobody in unless it is told to. Many can be told by the machines behind
//! them. A task asks for one external UDP port; QUIC and WireGuard share the one behind it. It asks again often, because
//! a router that was restarted has forgotten, and when this machine's network changed; at the end it gives the port back.
//! What it gets is one more address under which members may find us, no proof that they can: the next router may not
//! let them in.
//!
//! Machines with a public address, or without a router, ask nobody.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    num::NonZeroU16,
    time::Duration,
};

use crab_nat::{
    GATEWAY_PORT, InternetProtocol, MappingFailure, PortMappingOptions, PortMappingType,
    TimeoutConfig, natpmp,
};
use futures::StreamExt;
use hivevpn_platform::routes::default_gateway;
use if_watch::{IfEvent, tokio::IfWatcher};
use igd_next::{
    PortMappingProtocol, SearchOptions,
    aio::{Gateway, tokio as upnp},
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::swarm::addresses::is_public_ip;

/// How long a router keeps a mapping that nobody asks for again (recommended by RFC 6886 §3.3).
const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);
/// How often it is asked again. A restarted router leaves us without a mapping for no longer.
const RENEWAL: Duration = Duration::from_secs(10 * 60);
/// However little the router gives.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(15);
/// The pause after nobody gave a mapping, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Without a change for this long, a change is over.
const SETTLING: Duration = Duration::from_secs(1);

/// Without an answer, PCP and NAT-PMP requests are sent again after 0.25 s and 0.75 s, and given up after 1.75 s.
const TIMEOUTS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};
/// How long routers that speak UPnP have to answer a multicast.
const SEARCH: Duration = Duration::from_secs(3);
/// How long the conversation with one may take.
const UPNP: Duration = Duration::from_secs(10);
/// How long the end of the program waits for the router.
const RELEASE: Duration = Duration::from_secs(2);

/// What the router's list of mappings shows.
const NAME: &str = "hivevpn";

/// The task. When this is dropped, it gives the port back and ends; [`PortMapping::end`] waits for that.
pub struct PortMapping {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl PortMapping {
    /// Begins to ask for a mapping of UDP `port`. The receiver tells the mapped external address, a public one, whenever
    /// it changes.
    pub fn start(
        runtime: &Handle,
        port: NonZeroU16,
    ) -> (Self, watch::Receiver<Option<SocketAddrV4>>) {
        let (stop, stopped) = oneshot::channel();
        let (tell, mapped) = watch::channel(None);
        let task = runtime.spawn(async move {
            let mut asking = Asking {
                port,
                mapping: None,
                failures: 0,
                tell,
            };
            tokio::select! {
                () = asking.go_on() => {}
                _ = stopped => asking.release().await,
            }
        });
        (Self { stop, task }, mapped)
    }

    /// Gives the port back; takes [`RELEASE`] at most.
    pub async fn end(self) {
        // Fails when the task has ended, which is what is wanted.
        let _ = self.stop.send(());
        if timeout(RELEASE, self.task).await.is_err() {
            tracing::debug!("the router did not take its port back in time; it expires");
        }
    }
}

/// The way out: the router, and what it knows us as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exit {
    router: Ipv4Addr,
    local: Ipv4Addr,
}

impl Exit {
    /// Of this machine at the moment, if routers stand between it and the internet.
    fn find() -> io::Result<Option<Self>> {
        let Some(router) = default_gateway()? else {
            return Ok(None);
        };
        // Connecting sends nothing; it makes the system choose an address.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((router, GATEWAY_PORT))?;
        let SocketAddr::V4(local) = socket.local_addr()? else {
            return Ok(None);
        };
        let local = *local.ip();
        Ok((!is_public_ip(local.into())).then_some(Self { router, local }))
    }
}

struct Asking {
    port: NonZeroU16,
    mapping: Option<Mapping>,
    /// How often in a row nobody gave a mapping.
    failures: u32,
    tell: watch::Sender<Option<SocketAddrV4>>,
}

impl Asking {
    async fn go_on(&mut self) {
        let mut network = Network::listen();
        loop {
            self.ask().await;
            tokio::select! {
                () = sleep(self.pause()) => {}
                () = network.changed() => {
                    self.failures = 0;
                    network.settle().await;
                }
            }
        }
    }

    fn pause(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => self.mapping.as_ref().map_or(RENEWAL, Mapping::renewal),
            Some(doubled) => (FIRST_PAUSE * 2_u32.pow(doubled.min(6))).min(LONGEST_PAUSE),
        }
    }

    /// Renews the mapping that there is, or asks for one.
    async fn ask(&mut self) {
        let exit = Exit::find().unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot look for a router that maps ports");
            None
        });
        // The mapping stays where it is while the router is asked, so that the end of the program finds it.
        if let Some(mapping) = &mut self.mapping
            && (Some(mapping.exit) != exit || !mapping.renew().await)
        {
            self.release().await;
        }
        if let (None, Some(exit)) = (&self.mapping, exit) {
            self.mapping = Mapping::obtain(exit, self.port).await;
        }
        let external = self.mapping.as_ref().map(|mapping| mapping.external);
        self.failures = match (external, exit) {
            (None, Some(_)) => self.failures.saturating_add(1),
            (Some(_), _) | (None, None) => 0,
        };
        self.announce(external);
    }

    fn announce(&self, external: Option<SocketAddrV4>) {
        // A router behind another one gives away what is not its own.
        let public = external.filter(|external| is_public_ip((*external.ip()).into()));
        let is_news = self.tell.send_if_modified(|told| {
            let is_news = *told != public;
            *told = public;
            is_news
        });
        match (public, external) {
            (Some(external), _) if is_news => {
                tracing::info!(%external, "the router forwards a port to this node");
            }
            (None, Some(external)) => {
                tracing::debug!(%external, "the router forwards a port, but is not on the internet itself");
            }
            (None, None) if is_news => {
                tracing::info!("the router does not forward a port to this node any more");
            }
            (Some(_), _) | (None, None) => {}
        }
    }

    async fn release(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            mapping.release().await;
        }
    }
}

/// A port that the router forwards to ours.
struct Mapping {
    exit: Exit,
    external: SocketAddrV4,
    lease: Lease,
}

/// By which protocol.
enum Lease {
    /// PCP or NAT-PMP.
    Gateway(crab_nat::PortMapping),
    Upnp {
        gateway: Gateway<upnp::Tokio>,
        port: NonZeroU16,
    },
}

impl Mapping {
    /// Asks everybody who might give one.
    async fn obtain(exit: Exit, port: NonZeroU16) -> Option<Self> {
        let by_gateway = match Self::by_gateway(exit, port).await {
            Ok(mapping) => return Some(mapping),
            Err(error) => error,
        };
        match timeout(UPNP, Self::by_upnp(exit, port)).await {
            Ok(Ok(mapping)) => return Some(mapping),
            Ok(Err(by_upnp)) => {
                tracing::debug!(router = %exit.router, %by_gateway, %by_upnp, "no router forwards a port");
            }
            Err(_) => {
                tracing::debug!(router = %exit.router, "a router that speaks UPnP does not answer in time")
            }
        }
        None
    }

    async fn by_gateway(exit: Exit, port: NonZeroU16) -> Result<Self, MappingFailure> {
        let options = PortMappingOptions {
            external_port: Some(port),
            lifetime_seconds: u32::try_from(LIFETIME.as_secs()).ok(),
            timeout_config: Some(TIMEOUTS),
        };
        let lease = crab_nat::PortMapping::new(
            exit.router.into(),
            exit.local.into(),
            InternetProtocol::Udp,
            port,
            options,
        )
        .await?;
        Ok(Self {
            exit,
            external: external(&lease, exit).await?,
            lease: Lease::Gateway(lease),
        })
    }

    async fn by_upnp(exit: Exit, port: NonZeroU16) -> Result<Self, igd_next::Error> {
        let mut options = SearchOptions::default();
        options.bind_addr = (exit.local, 0).into();
        options.timeout = Some(SEARCH);
        options.single_search_timeout = Some(SEARCH);
        let gateway = upnp::search_gateway(options).await?;
        let local = SocketAddr::from((exit.local, port.get()));
        let seconds = LIFETIME.as_secs() as u32;
        let udp = PortMappingProtocol::UDP;
        let ours = gateway
            .add_port(udp, port.get(), local, seconds, NAME)
            .await;
        let external_port = match ours {
            Ok(()) => port.get(),
            // Another machine has it.
            Err(_) => gateway.add_any_port(udp, local, seconds, NAME).await?,
        };
        let IpAddr::V4(ip) = gateway.get_external_ip().await? else {
            return Err(igd_next::SearchError::InvalidResponse.into());
        };
        Ok(Self {
            exit,
            external: SocketAddrV4::new(ip, external_port),
            lease: Lease::Upnp { gateway, port },
        })
    }

    /// How long until it should be renewed: in the middle of its life at the latest.
    fn renewal(&self) -> Duration {
        match &self.lease {
            Lease::Gateway(lease) => RENEWAL
                .min(Duration::from_secs(u64::from(lease.lifetime()) / 2).max(SHORTEST_RENEWAL)),
            Lease::Upnp { .. } => RENEWAL,
        }
    }

    /// Asks for the same again. Returns whether the router still gives it.
    async fn renew(&mut self) -> bool {
        let renewed = match &mut self.lease {
            Lease::Gateway(lease) => renew_with_gateway(lease, self.exit).await,
            Lease::Upnp { gateway, port } => {
                renew_with_upnp(gateway, self.exit, *port, self.external.port()).await
            }
        };
        match renewed {
            Ok(external) => {
                self.external = external;
                true
            }
            Err(error) => {
                tracing::debug!(external = %self.external, %error, "the router does not renew its mapping");
                false
            }
        }
    }

    async fn release(self) {
        let external = self.external;
        let released = match self.lease {
            Lease::Gateway(lease) => {
                let dropped = lease.try_drop().await;
                dropped.map_err(|(error, _)| error.to_string())
            }
            Lease::Upnp { gateway, .. } => {
                let removal = gateway.remove_port(PortMappingProtocol::UDP, external.port());
                removal.await.map_err(|error| error.to_string())
            }
        };
        match released {
            Ok(()) => tracing::debug!(%external, "the router has its port back"),
            Err(error) => {
                tracing::debug!(%external, error, "the router does not take its port back; it expires");
            }
        }
    }
}

/// The address that leads to us with this lease.
async fn external(
    lease: &crab_nat::PortMapping,
    exit: Exit,
) -> Result<SocketAddrV4, MappingFailure> {
    let ip = match lease.mapping_type() {
        PortMappingType::Pcp {
            external_ip: IpAddr::V4(ip),
            ..
        } => ip,
        PortMappingType::Pcp {
            external_ip: IpAddr::V6(ip),
            ..
        } => ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
        PortMappingType::NatPmp => {
            natpmp::external_address(exit.router.into(), Some(TIMEOUTS)).await?
        }
    };
    Ok(SocketAddrV4::new(ip, lease.external_port().get()))
}

async fn renew_with_gateway(
    lease: &mut crab_nat::PortMapping,
    exit: Exit,
) -> anyhow::Result<SocketAddrV4> {
    lease.renew().await?;
    Ok(external(lease, exit).await?)
}

async fn renew_with_upnp(
    gateway: &Gateway<upnp::Tokio>,
    exit: Exit,
    port: NonZeroU16,
    external_port: u16,
) -> anyhow::Result<SocketAddrV4> {
    let local = SocketAddr::from((exit.local, port.get()));
    let seconds = LIFETIME.as_secs() as u32;
    let conversation = async {
        gateway
            .add_port(
                PortMappingProtocol::UDP,
                external_port,
                local,
                seconds,
                NAME,
            )
            .await?;
        anyhow::Ok(gateway.get_external_ip().await?)
    };
    match timeout(UPNP, conversation).await?? {
        IpAddr::V4(ip) => Ok(SocketAddrV4::new(ip, external_port)),
        IpAddr::V6(ip) => anyhow::bail!("the router says that its IPv4 address is {ip}"),
    }
}

/// Changes to this machine's addresses, for a task to wait for. Where the system tells of none, there are none.
struct Network(Option<IfWatcher>);

impl Network {
    fn listen() -> Self {
        let watcher = IfWatcher::new();
        if let Err(error) = &watcher {
            tracing::debug!(%error, "port mappings do not follow changes to the network");
        }
        Self(watcher.ok())
    }

    async fn changed(&mut self) {
        let Some(Ok(_)) = self.next().await else {
            return std::future::pending().await;
        };
    }

    /// Waits until the changes are over: an address comes before its routes, and seldom alone.
    async fn settle(&mut self) {
        loop {
            match timeout(SETTLING, self.next()).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) | Err(_) => return,
            }
        }
    }

    async fn next(&mut self) -> Option<io::Result<IfEvent>> {
        self.0.as_mut()?.next().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking() -> Asking {
        Asking {
            port: NonZeroU16::MIN,
            mapping: None,
            failures: 0,
            tell: watch::channel(None).0,
        }
    }

    #[test]
    fn routers_that_give_nothing_are_asked_ever_more_rarely() {
        let mut asking = asking();
        let pauses: Vec<_> = (1..=20)
            .map(|failures| {
                asking.failures = failures;
                asking.pause()
            })
            .collect();
        assert!(pauses.is_sorted());
        assert_eq!((pauses[0], pauses[19]), (FIRST_PAUSE, LONGEST_PAUSE));
    }

    #[test]
    fn only_a_public_address_is_told() {
        let asking = asking();
        let mut told = asking.tell.subscribe();
        asking.announce(Some("192.168.1.7:7777".parse().unwrap()));
        assert!(!told.has_changed().unwrap(), "a router behind a router");
        let public = "203.0.113.9:7777".parse().unwrap();
        asking.announce(Some(public));
        assert_eq!(*told.borrow_and_update(), Some(public));
        asking.announce(Some(public));
        assert!(!told.has_changed().unwrap(), "a renewal is no news");
        asking.announce(None);
        assert_eq!(*told.borrow_and_update(), None);
    }
}
