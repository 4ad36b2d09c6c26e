use tokio::net::TcpStream;
use tokio_postgres::NoTls;

use crate::support::postgres::shared;
use crate::support::proxy::{ConfigText, Proxy};
use crate::{connect, value};

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_hits_its_own_query_and_no_other() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 2\n");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    let cancel = ann.cancel_token();
    let of_bob =
        tokio::spawn(async move { value(&bob, "SELECT 'whole' FROM pg_sleep(1.5)").await });
    let of_ann = tokio::spawn(async move {
        let error = ann.simple_query("SELECT pg_sleep(60)").await.unwrap_err();
        (
            error.code().unwrap().code().to_owned(),
            value(&ann, "SELECT 'afterwards'").await,
        )
    });
    // A request that comes before its query is none: again, until it has hit.
    while !of_ann.is_finished() {
        cancel.cancel_query(NoTls).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (code, afterwards) = of_ann.await.unwrap();
    assert_eq!(
        (code.as_str(), afterwards.as_str()),
        ("57014", "afterwards")
    );
    assert_eq!(of_bob.await.unwrap(), "whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_clients_cancel_request_does_not_hit_who_has_its_server_now() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    let cancel = ann.cancel_token();
    assert_eq!(value(&ann, "SELECT 1").await, "1");
    let of_bob =
        tokio::spawn(async move { value(&bob, "SELECT 'whole' FROM pg_sleep(0.5)").await });
    while !of_bob.is_finished() {
        cancel.cancel_query(NoTls).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(of_bob.await.unwrap(), "whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_waits_for_a_server_can_be_cancelled_too() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let (holder, ann) = (connect(&proxy).await, connect(&proxy).await);
    holder.batch_execute("BEGIN").await.unwrap();
    let cancel = ann.cancel_token();
    let of_ann = tokio::spawn(async move {
        let simple = ann.simple_query("SELECT 1").await.unwrap_err();
        let extended = ann.query("SELECT 1", &[]).await.unwrap_err();
        let codes = [simple, extended].map(|error| error.code().unwrap().code().to_owned());
        (ann, codes)
    });
    // A request that comes before its query is none: again, until it has hit.
    while !of_ann.is_finished() {
        cancel.cancel_query(NoTls).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let (ann, codes) = of_ann.await.unwrap();
    assert_eq!(codes, ["57014", "57014"]);
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(value(&ann, "SELECT 'afterwards'").await, "afterwards");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_cancel_requests_hits_nobody_else() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 4\n");
    let mut bystanders = Vec::new();
    for _ in 0..4 {
        let client = connect(&proxy).await;
        bystanders.push(tokio::spawn(async move {
            for number in 0..150 {
                let sql = format!("SELECT {number} FROM pg_sleep(0.002)");
                assert_eq!(value(&client, &sql).await, number.to_string());
            }
        }));
    }
    // Their queries are so short that most requests come too late, when somebody else has the server.
    let mut storm = Vec::new();
    for _ in 0..4 {
        let client = connect(&proxy).await;
        let token = client.cancel_token();
        storm.push(tokio::spawn(async move {
            let mut hits = 0;
            for _ in 0..10 {
                let requests: Vec<_> = (0..25)
                    .map(|_| {
                        let token = token.clone();
                        tokio::spawn(async move { token.cancel_query(NoTls).await.unwrap() })
                    })
                    .collect();
                for _ in 0..5 {
                    match client.simple_query("SELECT pg_sleep(0.005)").await {
                        Ok(_) => {}
                        Err(error) => {
                            assert_eq!(error.code().unwrap().code(), "57014");
                            hits += 1;
                        }
                    }
                }
                for request in requests {
                    request.await.unwrap();
                }
            }
            hits
        }));
    }
    let mut hits = 0;
    for victim in storm {
        hits += victim.await.unwrap();
    }
    assert!(hits > 0, "of a thousand requests some are in time");
    for bystander in bystanders {
        bystander.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_that_comes_to_a_peer_is_passed_on() {
    let config = |id: u8| ConfigText::for_port(shared().port()).listen(&format!("peer_id = {id}"));
    let own = Proxy::with(&config(1));
    let peers = format!("[peers.1]\nhost = \"127.0.0.1\"\nport = {}\n", own.port());
    let other = Proxy::with(&config(2).and(&peers));
    let ann = connect(&own).await;
    let token = ann.cancel_token();
    let of_ann =
        tokio::spawn(async move { ann.simple_query("SELECT pg_sleep(60)").await.unwrap_err() });
    // A request that comes before its query is none: again, until it has hit.
    while !of_ann.is_finished() {
        let stream = TcpStream::connect(other.address()).await.unwrap();
        token.cancel_query_raw(stream, NoTls).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(of_ann.await.unwrap().code().unwrap().code(), "57014");
    assert!(other.metric("pgspan_cancels_total", &["outcome=\"relayed\""]) >= 1.0);
}
