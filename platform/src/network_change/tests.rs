use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::IpNet;
use nix::net::if_::if_nametoindex;

use super::*;
use crate::namespace;
use crate::netlink::Conversation;
use crate::poll;
use crate::routes::{add_route, remove_route};
use crate::tun::{Tun, TunConfig};

fn tun(name: &str, ipv4: Option<(Ipv4Addr, u8)>) -> Tun {
    let config = TunConfig {
        name: name.into(),
        ipv4,
        ipv6: None,
        mtu: 1420,
        offload: true,
    };
    Tun::open(&config).unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn kernel() -> Conversation {
    Conversation::open().unwrap()
}

fn listen() -> NetworkChanges {
    let mut changes = NetworkChanges::open("hive0").unwrap();
    assert!(!changes.drain(), "nothing has changed yet");
    changes
}

fn is_readable(changes: &NetworkChanges) -> bool {
    !poll::wait(&[changes.as_fd()], Some(Duration::ZERO))
        .unwrap()
        .is_empty()
}

#[test]
fn an_address_that_comes_or_goes_is_a_change_told_once() {
    namespace::run(|| {
        let _uplink = tun("uplink0", None);
        let index = if_nametoindex("uplink0").unwrap();
        let mut changes = listen();
        for address in ["192.168.9.1/24", "2001:db8::1/64"] {
            kernel().add_address(index, net(address)).unwrap();
            assert!(is_readable(&changes));
            assert!(changes.drain(), "{address} came");
            assert!(!is_readable(&changes));
            assert!(!changes.drain());
            kernel().remove_address(index, net(address)).unwrap();
            assert!(changes.drain(), "{address} went");
        }
    });
}

#[test]
fn a_link_that_goes_down_and_comes_back_is_a_change_each_time() {
    namespace::run(|| {
        let _uplink = tun("uplink0", Some(([192, 168, 9, 1].into(), 24)));
        let index = if_nametoindex("uplink0").unwrap();
        let mut changes = listen();
        kernel().set_link_down(index).unwrap();
        assert!(changes.drain());
        kernel().set_link_up(index).unwrap();
        assert!(changes.drain());
        kernel().set_link_down(index).unwrap();
        kernel().set_link_up(index).unwrap();
        assert!(
            changes.drain(),
            "the end is as the beginning, and yet paths broke"
        );
        kernel().remove_link(index).unwrap();
        assert!(changes.drain());
    });
}

#[test]
fn a_route_is_a_change() {
    namespace::run(|| {
        let _uplink = tun("uplink0", Some(([192, 168, 9, 1].into(), 24)));
        let mut changes = listen();
        for network in ["0.0.0.0/0", "10.9.0.0/16", "::/0", "2001:db8:1::/48"] {
            add_route("uplink0", net(network)).unwrap();
            assert!(changes.drain(), "{network} came");
            remove_route("uplink0", net(network)).unwrap();
            assert!(changes.drain(), "{network} went");
        }
    });
}

#[test]
fn what_we_do_to_the_overlay_is_no_change() {
    namespace::run(|| {
        let mut changes = listen();
        let overlay = tun("hive0", Some(([10, 77, 0, 4].into(), 16)));
        let index = if_nametoindex("hive0").unwrap();
        kernel().add_address(index, net("fd77::4/64")).unwrap();
        add_route("hive0", net("10.88.0.0/16")).unwrap();
        remove_route("hive0", net("10.88.0.0/16")).unwrap();
        kernel().set_link_down(index).unwrap();
        kernel().set_link_up(index).unwrap();
        assert!(is_readable(&changes), "there is something to leave out");
        assert!(!changes.drain());
        drop(overlay);
        assert!(!changes.drain());

        // The next interface of this name is ours as well; another never is.
        let _overlay = tun("hive0", Some(([10, 77, 0, 4].into(), 16)));
        assert!(!changes.drain());
        let _uplink = tun("uplink0", Some(([192, 168, 9, 1].into(), 24)));
        assert!(changes.drain());
    });
}

#[test]
fn an_overlay_that_was_there_before_us_is_left_out_too() {
    namespace::run(|| {
        let _overlay = tun("hive0", None);
        let index = if_nametoindex("hive0").unwrap();
        let mut changes = listen();
        kernel().add_address(index, net("10.77.0.4/16")).unwrap();
        assert!(is_readable(&changes));
        assert!(!changes.drain());
    });
}

#[test]
fn an_interface_that_no_datagram_leaves_by_is_no_change() {
    namespace::run(|| {
        let mut changes = listen();
        let _container = tun("veth0", None);
        let index = if_nametoindex("veth0").unwrap();
        kernel().add_address(index, net("fe80::9/64")).unwrap();
        kernel().set_link_down(index).unwrap();
        kernel().set_link_up(index).unwrap();
        assert!(is_readable(&changes), "there is something to leave out");
        assert!(!changes.drain());
    });
}

#[test]
fn more_notices_than_the_socket_can_hold_are_a_change() {
    namespace::run(|| {
        let _overlay = tun("hive0", None);
        let _uplink = tun("uplink0", None);
        let index = if_nametoindex("uplink0").unwrap();
        let mut changes = listen();
        // Each is left out, so that only their number can count.
        let mut kernel = kernel();
        for _ in 0..3000 {
            let overlay = if_nametoindex("hive0").unwrap();
            kernel.add_route(overlay, net("10.88.0.0/16")).unwrap();
            kernel.remove_route(overlay, net("10.88.0.0/16")).unwrap();
        }
        kernel.add_address(index, net("192.168.9.1/24")).unwrap();
        assert!(changes.drain());
        while is_readable(&changes) {
            changes.drain();
        }
        // What was lost is known all the same.
        kernel.set_link_down(index).unwrap();
        assert!(changes.drain());
    });
}
