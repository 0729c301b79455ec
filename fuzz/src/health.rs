//! The answer to a health check, as a hostile server gives it: through the true client, over loopback.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use laneway::config::Source;
use laneway::machine::Fault;
use laneway::plan::resolve;
use laneway::plan::spec::{HealthCheck, Spec};
use laneway::runtime::clock::Clock;
use laneway::runtime::probe::Prober;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::check_message;

/// The deadline of the check: an answer without end costs this much of the fuzzer's time.
const DEADLINE: Duration = Duration::from_millis(200);
/// By then a check that minds its deadline is over, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Any answer becomes a verdict in time. The first byte says how it is given: 1 without end, 2 with silence after it, else
/// once.
pub fn check_health(bytes: &[u8]) {
    let Some((manner, answer)) = bytes.split_first() else { return };
    Lab::with(|lab| {
        lab.runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
            let mut spec = lab.spec.clone();
            spec.facts.host = fresh_address();
            spec.facts.port = Some(listener.local_addr().unwrap().port());
            let asked = timeout(DEADLINE, lab.prober.ask(&spec, &lab.check));
            let (verdict, ()) = timeout(PATIENCE, async {
                tokio::select! {
                    verdict = asked => (verdict, ()),
                    () = serve(&listener, *manner, answer) => unreachable!("the server waits for its end"),
                }
            })
            .await
            .expect("the check minds its deadline");
            match verdict {
                Ok(Ok(status)) => assert!(status.is_some_and(|status| (200..300).contains(&status)), "{status:?}"),
                Ok(Err(fault)) => check_fault(&fault),
                Err(_) => {}
            }
        });
    });
}

fn check_fault(fault: &Fault) {
    match fault {
        Fault::Status { status, location } => {
            assert!(!(200..300).contains(status), "{status} is expected");
            check_message(location.as_deref().unwrap_or_default());
        }
        Fault::Broken { error } => {
            assert!(!error.is_empty());
            check_message(error);
        }
        Fault::Refused | Fault::TimedOut { .. } | Fault::Body => {}
        Fault::Command { .. } => panic!("no command was run"),
    }
}

/// Never returns: a server that ends would end the test of what the client makes of it.
async fn serve(listener: &TcpListener, manner: u8, answer: &[u8]) {
    if let Ok((mut stream, _)) = listener.accept().await {
        let mut question = [0; 4096];
        let _ = stream.read(&mut question).await;
        loop {
            if stream.write_all(answer).await.is_err() || manner != 1 || answer.is_empty() {
                break;
            }
        }
        if manner == 2 {
            std::future::pending::<()>().await;
        }
        let _ = stream.shutdown().await;
    }
    std::future::pending::<()>().await;
}

/// Another loopback address each time: the pairs of ports of ended connections stay in use for a minute.
fn fresh_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, b, c, d] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, b, c, d.max(1)), 0)).ip()
}

/// What all inputs share.
struct Lab {
    runtime: Runtime,
    prober: Prober,
    spec: Spec,
    check: HealthCheck,
}

impl Lab {
    fn with(act: impl FnOnce(&Self)) {
        thread_local!(static LAB: Lab = Lab::new());
        LAB.with(act);
    }

    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("laneway-fuzz-health-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let yaml = "instances: {a: {port: 1, command: [x], healthcheck: {path: /health/, body: fine}}}";
        std::fs::write(folder.join("instances.yaml"), yaml).unwrap();
        let environment = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
        let plan = resolve(&Source { directory: folder.clone(), environment, ..Source::default() }).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        let spec = plan.specs.into_iter().next().unwrap();
        let check = spec.healthcheck.clone().unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let prober = runtime.block_on(async { Prober::new(Clock::start()) }).unwrap();
        Self { runtime, prober, spec, check }
    }
}
