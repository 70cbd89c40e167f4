//! The protocols that a peer may open on a connection: the exchange once we are in the network, the wrapped
//! ones once the peer has been admitted.

use either::Either;
use futures::future::{self, BoxFuture, FutureExt, TryFutureExt};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, UpgradeInfo},
    swarm::handler::{InboundUpgradeSend, UpgradeInfoSend},
};

/// The doors that are open now.
pub struct Doors<P> {
    pub(super) auth: Option<StreamProtocol>,
    pub(super) inner: Option<P>,
}

impl<P: UpgradeInfoSend> UpgradeInfo for Doors<P> {
    type Info = Either<StreamProtocol, P::Info>;
    type InfoIter = Vec<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        let auth = self.auth.iter().cloned().map(Either::Left);
        let inner = self.inner.iter().flat_map(P::protocol_info);
        auth.chain(inner.map(Either::Right)).collect()
    }
}

impl<P: InboundUpgradeSend> InboundUpgrade<Stream> for Doors<P> {
    type Output = future::Either<Stream, P::Output>;
    type Error = P::Error;
    type Future = BoxFuture<'static, Result<Self::Output, P::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: Self::Info) -> Self::Future {
        match (protocol, self.inner) {
            (Either::Right(protocol), Some(inner)) => inner
                .upgrade_inbound(stream, protocol)
                .map_ok(future::Either::Right)
                .boxed(),
            (Either::Left(_) | Either::Right(_), _) => {
                future::ready(Ok(future::Either::Left(stream))).boxed()
            }
        }
    }
}
