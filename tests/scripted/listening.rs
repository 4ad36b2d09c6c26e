//! Where clients connect: unix sockets, and several addresses.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use crate::support::PATIENCE;
use crate::support::messages::*;
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::scripted::ScriptedServer;

#[test]
fn a_client_logs_in_over_a_unix_socket_and_the_file_goes_with_the_proxy() {
    let script = ScriptedServer::start();
    let folder = tempfile::tempdir().unwrap();
    let config = ConfigText::for_port(script.port())
        .listen(&format!("unix_socket_dir = {:?}", folder.path()));
    let proxy = Proxy::with(&config);
    let path = folder.path().join(format!(".s.PGSQL.{}", proxy.port()));

    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let login = startup(&[("user", "app"), ("database", "app")]);
    client.write_all(&login.0).unwrap();
    let mut answer = [0; 9];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *authentication_ok().0);
    proxy.wait_for_log(&[
        "login attempt: db=app user=app",
        &format!("unix({})", std::process::id()),
    ]);
    client.shutdown(Shutdown::Both).unwrap();

    drop(proxy);
    assert!(!path.exists());
}

#[test]
fn one_address_of_several_may_fail() {
    let script = ScriptedServer::start();
    let taken = ScriptedServer::start();
    // The list begins with one that somebody else has: the second serves.
    let port = pgspan::dev::postgres::free_port().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let text = format!(
        "[listen]\naddress = [\"127.0.0.1:{}\", \"127.0.0.1:{port}\"]\n[http]\naddress = \"\"\n\
         [auth]\nmethod = \"trust\"\n[databases.app]\nport = {}\n[users.app]\n",
        taken.port(),
        script.port()
    );
    std::fs::write(&file, text).unwrap();
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_pgspan"))
        .arg(&file)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let connected =
        crate::support::eventually(|| TcpStream::connect(("127.0.0.1", port)).ok()).is_some();
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(connected);
}
