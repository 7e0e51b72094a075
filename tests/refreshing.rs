//! One person's sign-in, renewed by several processes at the same time, some of them killed: no renewal is refused, no
//! refresh token is lost.
//!
//! The processes are this program again, with the first argument `child`.
#![cfg(all(unix, feature = "graph", feature = "sqlite"))]

#[path = "support/consent.rs"]
mod consent;
#[cfg(feature = "postgres")]
#[path = "support/postgres.rs"]
mod postgres;

use std::{
    io::Read as _,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use consent::{KEY, SECRET, Site};
use libtest_mimic::{Arguments, Failed, Trial};
use mail_account::{
    Context, MailAccount as _, MailApp,
    provider::{
        Opening,
        graph::{GraphAccount, GraphConfig},
    },
    testing::graph::Rotation,
};

const WEB: &str = "https://host.example/callback";
const PROCESSES: usize = 3;
const RENEWALS: usize = 200;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, config, times] = args.as_slice()
        && child == "child"
    {
        runtime().block_on(renew(Path::new(config), times.parse().expect("a number")));
        return ExitCode::SUCCESS;
    }
    let mut trials = vec![
        trial("sqlite::three_processes_renew_one_sign_in", || three_processes(None)),
        trial("sqlite::killed_processes_cost_no_sign_in", || killed(None, 12)),
    ];
    #[cfg(feature = "postgres")]
    {
        let server = std::sync::Arc::new(std::sync::LazyLock::<postgres::Postgres>::new(postgres::Postgres::start));
        let other = server.clone();
        trials.push(trial("postgres::three_processes_renew_one_sign_in", move || {
            three_processes(Some(server.database()));
        }));
        // Over a network nobody can tell that a process is dead, so that its lease is waited for.
        trials.push(trial("postgres::killed_processes_cost_no_sign_in", move || killed(Some(other.database()), 1)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok::<(), Failed>(())
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What a child does: opens the account anew each time, so that no access token is in hand and the sign-in is renewed.
async fn renew(config: &Path, times: usize) {
    let app = MailApp::load(config).unwrap();
    let store = app.token_store().await.unwrap();
    let settings = app.sign_in_settings("invoices").unwrap().unwrap();
    for _ in 0..times {
        let config = GraphConfig::new(settings.app.clone(), settings.auth, &*settings.mailbox);
        let opening = Opening::new("invoices").with_context(Context::default()).with_token_store(store.clone());
        let account = GraphAccount::open(&config, opening).unwrap();
        account.list_folders().await.unwrap_or_else(|e| panic!("{}", e.chain()));
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn child(config: &Path, times: usize) -> Running {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("child").arg(config).arg(times.to_string()).stderr(Stdio::piped());
    Running(command.spawn().unwrap())
}

fn ends_well(mut child: Running) {
    let mut told = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(child.0.wait().unwrap().success(), "{told}");
}

/// A site where the person has signed in.
async fn signed_in(url: Option<String>, rotation: Rotation) -> Site {
    let mut site = Site::with(|app| app.secret(SECRET).redirect_uri(WEB)).await;
    site.registration = format!("client_secret = \"{SECRET}\"\nredirect_uri = \"{WEB}\"\n");
    if let Some(url) = url {
        site.state = format!("[state]\nurl = \"{url}\"\nkey = \"{KEY}\"\n");
    }
    site.fake.configure(|settings| settings.sign_in.rotation = rotation);
    let host = site.host();
    let link = host.begin_sign_in("invoices", None).await.unwrap().link;
    let callback = site.fake.sign_in_as(link.as_str(), &site.user).await;
    assert!(host.complete_sign_in(&callback).await.unwrap().is_ok());
    site
}

async fn still_works(site: &Site) {
    let host = site.host();
    host.account("invoices").unwrap().list_folders().await.unwrap_or_else(|e| panic!("{}", e.chain()));
    assert!(site.stored(&host, "invoices").await.unwrap().needed.is_none());
}

/// The service takes a refresh token that was used before for theft, and ends the sign-in.
fn three_processes(url: Option<String>) {
    runtime().block_on(async {
        let site = signed_in(url, Rotation::SingleUse).await;
        let config = site.config();
        let children: Vec<Running> = (0..PROCESSES).map(|_| child(&config, RENEWALS.div_ceil(PROCESSES))).collect();
        tokio::task::block_in_place(|| children.into_iter().for_each(ends_well));
        let renewed = site.fake.counters().of_grant("refresh_token");
        assert!(renewed >= RENEWALS as u64, "{renewed} renewals");
        still_works(&site).await;
    });
}

/// What a process takes with it to its grave costs one generation, and the next one goes on at once: the service lets
/// the refresh token before the newest live until that is used, and ends the sign-in if it ever sees an older one.
fn killed(url: Option<String>, times: u32) {
    runtime().block_on(async {
        let site = signed_in(url, Rotation::OneBack).await;
        let config = site.config();
        let mut seed = 7_u64;
        for _ in 0..times {
            let doomed = child(&config, 1_000);
            let survivor = child(&config, 3);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            tokio::time::sleep(Duration::from_millis(60 + (seed >> 33) % 240)).await;
            drop(doomed);
            tokio::task::block_in_place(|| ends_well(survivor));
        }
        still_works(&site).await;
    });
}
