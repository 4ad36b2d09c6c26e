use crate::support::eventually;
use crate::support::postgres::shared;
use crate::support::proxy::Proxy;
use crate::{connect, connect_with, value};

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_transactions_may_end_and_nobody_new_is_let_in() {
    let mut proxy = Proxy::in_front_of(shared(), "");
    let client = connect(&proxy).await;
    client.batch_execute("BEGIN").await.unwrap();
    proxy.signal("TERM");
    let is_unready = || {
        proxy
            .http("/readyz")
            .is_none_or(|(status, _)| status == 503)
            .then_some(())
    };
    tokio::task::block_in_place(|| eventually(is_unready)).expect("it is no longer ready");
    assert!(connect_with(&proxy, "").await.is_err());
    assert_eq!(
        value(&client, "SELECT 'still served'").await,
        "still served"
    );
    client.batch_execute("COMMIT").await.unwrap();
    drop(client);
    assert_eq!(
        tokio::task::block_in_place(|| proxy.wait_for_exit()).code(),
        Some(0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_end_is_cut_off() {
    let mut proxy = Proxy::in_front_of(shared(), "[drain]\ntimeout = \"300ms\"\n");
    let client = connect(&proxy).await;
    client.batch_execute("BEGIN").await.unwrap();
    proxy.signal("TERM");
    assert!(
        tokio::task::block_in_place(|| proxy.wait_for_exit())
            .code()
            .is_some()
    );
    assert!(client.simple_query("SELECT 1").await.is_err());
}

#[test]
fn it_is_alive_and_ready_until_then() {
    let proxy = Proxy::in_front_of(shared(), "");
    assert_eq!(proxy.http("/healthz").unwrap().0, 200);
    assert_eq!(proxy.http("/readyz").unwrap().0, 200);
    assert_eq!(proxy.http("/nosuch").unwrap().0, 404);
}
