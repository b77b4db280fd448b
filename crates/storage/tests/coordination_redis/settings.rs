use super::*;
use std::pin::Pin;

async fn value(driver: &Driver, name: &str) -> Option<String> {
    driver.settings().await.unwrap().remove(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_worker_sees_a_change_of_any_other_program() {
    let server = RedisServer::start();
    let (one, two) = (driver(&server).await, driver(&server).await);
    assert!(one.settings().await.unwrap().is_empty());
    one.set_setting("own_name", "1").await.unwrap();
    assert_eq!(value(&one, "own_name").await.as_deref(), Some("1"));
    until("a new name of ours", async || value(&two, "own_name").await.is_some()).await;
    assert_eq!(server.cli(&["GET", "mutt:config:own_name"]), "1");

    server.cli(&["SET", "mutt:config:moog_rate_limit", "77"]);
    assert_eq!(value(&two, "moog_rate_limit").await.as_deref(), Some("77"), "a name of the contract, at once");
    server.cli(&["SET", "mutt:config:their_name", "x"]);
    server.cli(&["PUBLISH", "mutt:config:updates", "their_name"]);
    until("a new name, told", async || value(&one, "their_name").await.is_some()).await;
    server.cli(&["SET", "mutt:config:silent", "y"]);
    until("a new name, not told", async || value(&one, "silent").await.is_some()).await;
    server.cli(&["DEL", "mutt:config:silent"]);
    assert_eq!(value(&one, "silent").await, None);
    assert_eq!(two.delete_setting("own_name").await.unwrap().as_deref(), Some("1"));
    assert_eq!(value(&one, "own_name").await, None);
    // What is no text is no setting, and hides none.
    server.cli(&["LPUSH", "mutt:config:list", "x"]);
    server.cli(&["PUBLISH", "mutt:config:updates", "list"]);
    assert_eq!(value(&one, "moog_rate_limit").await.as_deref(), Some("77"));
}

#[tokio::test]
async fn a_driver_that_starts_among_many_keys_finds_all_settings() {
    let server = RedisServer::start();
    server.cli(&["EVAL", "for i = 1, 50000 do redis.call('SET', 'other:' .. i, '') end", "0"]);
    server.cli(&["SET", "mutt:config:slo_x_window_hours", "12"]);
    let driver = driver(&server).await;
    assert_eq!(driver.settings().await.unwrap(), [("slo_x_window_hours".to_owned(), "12".to_owned())].into());
    server.cli(&["SET", "mutt:config:silent", "y"]);
    until("the slow walk comes by", async || value(&driver, "silent").await.is_some()).await;
}

#[tokio::test]
async fn a_change_is_told_by_its_bare_name() {
    let server = RedisServer::start();
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port())).unwrap();
    let mut heard = client.get_async_pubsub().await.unwrap();
    heard.subscribe("mutt:config:updates").await.unwrap();
    let driver = driver(&server).await;
    driver.set_setting("moog_rate_limit", "60").await.unwrap();
    driver.delete_setting("moog_rate_limit").await.unwrap();
    driver.delete_setting("moog_rate_limit").await.unwrap();
    driver.set_setting("last", "").await.unwrap();
    let mut names = Vec::new();
    let mut stream = heard.on_message();
    while names.last().is_none_or(|name| name != "last") {
        let next = std::future::poll_fn(|cx| futures_core::Stream::poll_next(Pin::new(&mut stream), cx));
        names.push(next.await.unwrap().get_payload::<String>().unwrap());
    }
    assert_eq!(names, ["moog_rate_limit", "moog_rate_limit", "last"], "nothing to remove is nothing to tell");
}

#[tokio::test]
async fn what_another_program_wrote_can_be_replaced_whatever_it_is() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    server.cli(&["LPUSH", "mutt:config:moog_rate_limit", "x"]);
    assert_eq!(value(&driver, "moog_rate_limit").await, None);
    driver.replace_setting("moog_rate_limit", None, Some("60")).await.unwrap();
    assert_eq!(server.cli(&["GET", "mutt:config:moog_rate_limit"]), "60");
    server.cli(&["EVAL", "redis.call('SET', KEYS[1], '5' .. string.char(255))", "1", "mutt:config:moog_rate_limit"]);
    let read = value(&driver, "moog_rate_limit").await.unwrap();
    driver.replace_setting("moog_rate_limit", Some(&read), None).await.unwrap();
    assert_eq!(server.cli(&["EXISTS", "mutt:config:moog_rate_limit"]), "0");
}

#[tokio::test]
async fn a_name_that_cannot_be_one_is_refused() {
    let server = RedisServer::start();
    let driver = driver(&server).await;
    for name in [String::new(), "x".repeat(10_000)] {
        let error = driver.set_setting(&name, "1").await.unwrap_err();
        assert_eq!(error.kind(), model::ErrorKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subscription_comes_back_after_a_restart() {
    let mut server = RedisServer::start();
    let driver = driver(&server).await;
    driver.set_setting("kept", "1").await.unwrap();
    let subscribers = |server: &RedisServer| server.cli(&["PUBSUB", "NUMSUB", "mutt:config:updates"]);
    until("subscribed", async || subscribers(&server).ends_with('1')).await;
    server.stop();
    assert!(driver.settings().await.unwrap_err().kind().is_transient());
    server.start_again();
    until("subscribed again", async || subscribers(&server).ends_with('1')).await;
    assert_eq!(value(&driver, "kept").await.as_deref(), Some("1"));
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("subscribed again", async || subscribers(&server).ends_with('1')).await;
}
