//! Servers at several hosts, and on abstract unix sockets.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::support::messages::*;
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::scripted::{ScriptedClient, ScriptedServer};

fn proxy_with(hosts: &str, port: u16, config: &str) -> Proxy {
    let database = format!("[databases.app]\nhost = {hosts:?}\nport = {port}\n{config}");
    Proxy::with(&ConfigText::for_port(port).and(&database))
}

#[test]
fn another_host_is_connected_where_the_first_one_does_not_answer() {
    let script = ScriptedServer::start();
    let proxy = proxy_with(
        "127.0.0.2,127.0.0.1",
        script.port(),
        "pool.load_balance_hosts = \"disable\"\n",
    );
    let mut ann = ScriptedClient::connect(proxy.address());
    ann.send(query("BEGIN"));
    script.connection().expect(query("BEGIN"));
    let mut bob = ScriptedClient::connect(proxy.address());
    bob.send(query("SELECT 'bob'"));
    script.connection().expect(query("SELECT 'bob'"));
    let failed = "closing because: connect failed; the next host is tried";
    let lines = proxy.log();
    // The second connection goes straight to the one that answered.
    assert_eq!(lines.iter().filter(|line| line.contains(failed)).count(), 1);
}

#[test]
fn hosts_take_turns() {
    let one = ScriptedServer::start();
    let other = ScriptedServer::start_on(([127, 0, 0, 2], one.port()).into());
    let proxy = proxy_with("127.0.0.1,127.0.0.2", one.port(), "");
    let mut ann = ScriptedClient::connect(proxy.address());
    ann.send(query("BEGIN"));
    one.connection().expect(query("BEGIN"));
    let mut bob = ScriptedClient::connect(proxy.address());
    bob.send(query("BEGIN"));
    other.connection().expect(query("BEGIN"));
}

#[test]
fn a_server_may_listen_on_an_abstract_socket() {
    let name = format!("pgspan-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(format!("{name}/.s.PGSQL.5432")).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let proxy = proxy_with(&format!("@{name}"), 5432, "");
    let proxied = proxy.address();
    std::thread::spawn(move || ScriptedClient::connect(proxied));
    listener.accept().unwrap();
}
