//! What Zenoh asks for when it dials, listens, or wants to know about a locator.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use zenoh_link_commons::{
    LinkManagerUnicastTrait, LinkUnicast, LinkUnicastTrait, LocatorInspector, NewLinkChannelSender,
};
use zenoh_protocol::core::{EndPoint, Locator};
use zenoh_result::ZResult;

use crate::UNIXSOCKSTREAM_LOCATOR_PREFIX as PROTOCOL;
use crate::door;

/// The doors that one session listens at.
pub struct LinkManagerUnicastUnixSocketStream {
    session: NewLinkChannelSender,
    listening: Mutex<BTreeMap<u64, EndPoint>>,
}

impl LinkManagerUnicastUnixSocketStream {
    /// For the session that meets at `session` whoever comes in.
    pub fn new(session: NewLinkChannelSender) -> Self {
        Self { session, listening: Mutex::default() }
    }

    fn listening(&self) -> MutexGuard<'_, BTreeMap<u64, EndPoint>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LinkManagerUnicastTrait for LinkManagerUnicastUnixSocketStream {
    async fn new_link(&self, endpoint: EndPoint) -> ZResult<LinkUnicast> {
        let link: Arc<dyn LinkUnicastTrait> = Arc::new(door::dial(door::parse(endpoint.address().as_str())?).await?);
        Ok(LinkUnicast::from(link))
    }

    async fn new_listener(&self, endpoint: EndPoint) -> ZResult<Locator> {
        let number = door::parse(endpoint.address().as_str())?;
        door::listen(number, self.session.clone())?;
        let locator = endpoint.to_locator();
        self.listening().insert(number, endpoint);
        Ok(locator)
    }

    async fn del_listener(&self, endpoint: &EndPoint) -> ZResult<()> {
        let number = door::parse(endpoint.address().as_str())?;
        if self.listening().remove(&number).is_some() {
            door::ignore(number);
        }
        Ok(())
    }

    async fn get_listeners(&self) -> Vec<EndPoint> {
        self.listening().values().cloned().collect()
    }

    async fn get_locators(&self) -> Vec<Locator> {
        self.listening().values().map(EndPoint::to_locator).collect()
    }

    async fn get_locators_noloopback(&self) -> Vec<Locator> {
        self.get_locators().await
    }
}

impl Drop for LinkManagerUnicastUnixSocketStream {
    fn drop(&mut self) {
        self.listening().keys().for_each(|number| door::ignore(*number));
    }
}

impl fmt::Debug for LinkManagerUnicastUnixSocketStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LinkManager({:?})", self.listening().keys())
    }
}

/// What Zenoh wants to know about a locator before it is used.
#[derive(Debug, Default, Clone, Copy)]
pub struct UnixSockStreamLocatorInspector;

#[async_trait]
impl LocatorInspector for UnixSockStreamLocatorInspector {
    fn protocol(&self) -> &str {
        PROTOCOL
    }

    async fn is_multicast(&self, _: &Locator) -> ZResult<bool> {
        Ok(false)
    }

    fn is_reliable(&self, _: &Locator) -> ZResult<bool> {
        Ok(true)
    }
}
