//! `settled serve` under a service manager.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::commands::program::{Running, run, settled};

#[tokio::test]
async fn a_service_manager_hears_of_it_and_an_operator_talks_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settled.toml");
    let (config, data) = (file.to_str().unwrap(), folder.path().join("data"));
    run(&["init", "--config", config]).await.done();
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("/var/lib/settled", data.to_str().unwrap()).replace("127.0.0.1:8080", "127.0.0.1:0");
    std::fs::write(&file, text).unwrap();
    run(&["migrate", "--config", config]).await.done();
    run(&["admin", "merchant", "create", "shop", "--config", config]).await.done();

    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut serve = settled(&["serve", "--config", config]);
    serve.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "900000");
    let mut running = serve.spawn().unwrap();
    let hear = || {
        let mut bytes = [0; 512];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let ready = hear();
    assert!(ready.contains("READY=1"), "{ready}");
    assert!(hear().contains("WATCHDOG=1"));

    let status = run(&["status", "--config", config]).await.done();
    let base = format!("http://{}", status.split("listens on ").nth(1).unwrap().split(' ').next().unwrap());
    run(&["admin", "product", "put", "box", "--price", "0.50", "--config", config]).await.done();
    let products: serde_json::Value = reqwest::get(format!("{base}/api/products")).await.unwrap().json().await.unwrap();
    assert_eq!(products["products"][0]["slug"], "box");
    let copy = folder.path().join("copy.db");
    run(&["backup", copy.to_str().unwrap(), "--config", config]).await.done();
    assert!(copy.is_file());
    assert_eq!(run(&["serve", "--config", config]).await.code, 4, "one daemon for a folder");

    Running::terminate(&running);
    assert!(running.wait().await.unwrap().success());
    let mut heard = hear();
    while !heard.contains("STOPPING=1") {
        heard = hear();
    }
}
