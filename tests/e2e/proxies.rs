//! A mount behind a proxy: API calls and artifact bytes go through the one that the environment
//! names, with its password shown nowhere, and around it to the hosts of NO_PROXY.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use mongo_backupfs::sim::Content;

use crate::authority::Authority;
use crate::world::{World, sha256_of};

/// `reader` and [`PASSWORD`], as they travel.
const CREDENTIALS: &str = "Basic cmVhZGVyOnByb3h5LWNhbmFyeQ==";
const PASSWORD: &str = "proxy-canary";

/// A host that only the proxy can reach.
const BEYOND: &str = "cloud.example.com";

/// A proxy that asks for [`CREDENTIALS`]. What it was asked for is kept.
struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Requests for plain http go where they say; for CONNECT it ends TLS itself and goes to `api`.
    fn start(world: &World, tls: TlsAcceptor, api: String) -> Proxy {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&asked);
        let listener = world.runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        world.runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (tls, api, asked) = (tls.clone(), api.clone(), Arc::clone(&kept));
                tokio::spawn(async move {
                    // A client that hangs up ends its connection, not the test.
                    let _ = pass(client, tls, &api, &asked).await;
                });
            }
        });
        Proxy { address, asked }
    }

    /// How environments name it.
    fn url(&self) -> String {
        format!("http://reader:{PASSWORD}@{}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn pass(
    client: TcpStream,
    tls: TlsAcceptor,
    api: &str,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if client.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let authorized = head.lines().any(|line| {
        line.split_once(": ").is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("proxy-authorization") && value == CREDENTIALS
        })
    });
    if !authorized {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(refusal).await;
    }
    let line = head.lines().next().unwrap_or_default();
    asked.lock().unwrap().push(line.to_owned());
    if line.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
        let mut inner = tls.accept(client).await?;
        let mut server = TcpStream::connect(api).await?;
        copy_bidirectional(&mut inner, &mut server).await?;
    } else {
        let target = line.split(' ').nth(1).unwrap_or_default();
        let host = target
            .strip_prefix("http://")
            .and_then(|rest| rest.split('/').next());
        let mut server = TcpStream::connect(host.unwrap_or_default()).await?;
        server.write_all(head.as_bytes()).await?;
        copy_bidirectional(&mut client, &mut server).await?;
    }
    Ok(())
}

/// A world of one artifact, its proxy, and the certificate authority of what lies beyond.
fn behind_a_proxy() -> (World, Proxy, Authority) {
    let world = World::with_content([Content::noise(3, 3 << 20)]);
    let authority = Authority::new();
    let tls = authority.acceptor(BEYOND, 2100, &[]);
    let api = world.sim.base_url().to_string();
    let api = api
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let proxy = Proxy::start(&world, tls, api);
    (world, proxy, authority)
}

#[test]
fn a_proxy_of_the_environment_carries_calls_and_bytes() {
    let (mut world, proxy, _authority) = behind_a_proxy();
    world.environment = vec![("http_proxy".into(), proxy.url())];
    world.mount();
    assert_eq!(sha256_of(&world.latest_file()), world.latest_sha256());
    world.unmount();
    let asked = proxy.asked();
    // Each connection is noted by its first request.
    assert!(asked.iter().any(|line| line.contains("/api/")), "{asked:?}");
    assert!(
        asked.iter().any(|line| !line.contains("/api/")),
        "{asked:?}"
    );
    assert_eq!(world.sim.bill().connections, asked.len() as u64);
    assert!(!world.log().contains(PASSWORD));
}

#[test]
fn hosts_of_no_proxy_are_asked_directly() {
    let (mut world, proxy, _authority) = behind_a_proxy();
    world.environment = vec![
        ("HTTP_PROXY".into(), proxy.url()),
        ("HTTPS_PROXY".into(), proxy.url()),
        ("NO_PROXY".into(), "example.org,127.0.0.1".into()),
    ];
    world.mount();
    assert_eq!(sha256_of(&world.latest_file()), world.latest_sha256());
    world.unmount();
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[test]
fn https_goes_through_a_tunnel_and_its_password_is_shown_nowhere() {
    let (mut world, proxy, authority) = behind_a_proxy();
    let ca_file = world.dir.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    world.account = Some(format!(
        "[[provider]]\nname = \"atlas\"\nkind = \"atlas\"\nendpoint = \"https://{BEYOND}\"\n\
         project_id = \"{}\"\npublic_key = \"{}\"\nprivate_key = \"{}\"\nca_file = \"{}\"\n\
         retry_budget = \"0s\"\n",
        world.sim.project_id(),
        world.sim.public_key(),
        world.sim.private_key(),
        ca_file.display(),
    ));
    world.environment = vec![("HTTPS_PROXY".into(), proxy.url())];
    let (listed, errors, code) = world.told("ls", &["--log-level", "trace", "-l"]);
    assert_eq!(code, 0, "{errors}");
    assert!(listed.contains("M2AWS"), "{listed}");
    let asked = proxy.asked();
    let tunnel = format!("CONNECT {BEYOND}:443 HTTP/1.1");
    assert!(
        !asked.is_empty() && asked.iter().all(|line| *line == tunnel),
        "{asked:?}"
    );
    assert!(!errors.contains(PASSWORD), "{errors}");

    // One that wants other credentials is named as what refuses.
    let wrong = proxy.url().replace("reader", "somebody");
    world.environment = vec![("HTTPS_PROXY".into(), wrong)];
    let (_, errors, code) = world.told("ls", &["--log-level", "trace"]);
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("proxy"), "{errors}");
    assert!(!errors.contains(PASSWORD), "{errors}");
}
