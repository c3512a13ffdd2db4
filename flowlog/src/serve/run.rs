//! The service's life: start, serve, end.
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::error::ApiError;
use super::http::{App, Ended, Metrics, router, serve};
use super::moment::Moment;
use super::nonces::Nonces;
use super::options::ServeOptions;
use super::rate::Rates;
use super::secrets::request_id;
use super::service::{Caller, Context, Role, transitions};
use super::start::{
    ADMINISTRATOR_FILE, AdministratorFile, StartError, administrator, allow_connections,
    check_plain_http, config, data_folder, seal, tls,
};
use super::store::Store;
use crate::log_service;
use crate::log_service::api::LogService;

/// How often flow logs are looked after that wait for agents which may be away by now.
const TICK: Duration = Duration::from_millis(500);

/// How often the store of logs is looked after.
const STORE_TICK: Duration = Duration::from_secs(1);

/// Runs the service until SIGTERM or Ctrl-C.
pub(super) fn run(options: &ServeOptions) -> Result<(), StartError> {
    let config = Arc::new(config(options)?);
    check_plain_http(options)?;
    let tls = tls(options)?;
    allow_connections(&config)?;
    let folder = &options.data_dir;
    // What SQLite makes is as secret as what is made here.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let _lock = data_folder(folder)?;
    let (now, begun) = (Moment::from_system(SystemTime::now()), Instant::now());
    let store = Store::open(folder)?;
    let seal = seal(folder, &store)?;
    if let Some(key) = administrator(folder, &store, &seal, &config, now)? {
        show(folder, &key);
    }
    let (end, ending) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System {
            what: "start the runtime",
            source,
        })?;
    let logs = runtime
        .block_on(LogService::open(folder))
        .map_err(StartError::Logs)?;
    let app = Arc::new(App {
        logs,
        nonces: Nonces::open(folder).map_err(StartError::Nonces)?,
        rates: Rates::new(&config),
        config,
        store,
        seal,
        metrics: Metrics::default(),
        clock: Box::new(|| Moment::from_system(SystemTime::now())),
        uptime: Box::new(move || milliseconds(begun.elapsed())),
        changes: watch::Sender::new(()),
        ending,
    });
    runtime.block_on(until_told(options, app, tls, end))
}

async fn until_told(
    options: &ServeOptions,
    app: Arc<App>,
    tls: Option<tokio_rustls::TlsAcceptor>,
    end: watch::Sender<bool>,
) -> Result<(), StartError> {
    let address = options.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen { address, source })?;
    let address = listener
        .local_addr()
        .map_err(|source| StartError::Listen { address, source })?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    // Before anybody is told that the service is there: who starts it may end it at once.
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [terminate, interrupt] = signals;
    let what = "wait for signals";
    let mut terminate = terminate.map_err(|source| StartError::System { what, source })?;
    let mut interrupt = interrupt.map_err(|source| StartError::System { what, source })?;
    // Whoever starts the service with port 0 reads the address here.
    print(&format!("listening on {scheme}://{address}\n"));
    tracing::info!(
        data_dir = %options.data_dir.display(),
        "listening on {scheme}://{address}"
    );
    let ticking = tokio::spawn(look_after(Arc::clone(&app)));
    tokio::spawn(async move {
        let told = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!("ending: {told}");
        end.send_replace(true);
    });
    let storing = tokio::spawn(look_after_logs(Arc::clone(&app)));
    let connections = app.config.connections;
    let ending = app.ending.clone();
    if serve(listener, tls, router(app), connections, ending).await == Ended::CutOff {
        tracing::warn!("requests were cut off");
    }
    ticking.abort();
    storing.abort();
    Ok(())
}

/// Lets flow logs arrive whose agents are away by now.
async fn look_after(app: Arc<App>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = settle(&app).await {
            tracing::error!("{}", error.inside().unwrap_or_else(|| error.message()));
        }
    }
}

/// Has the store flush, compact, and remove what is no longer kept.
async fn look_after_logs(app: Arc<App>) {
    let mut ticks = interval(STORE_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => (),
            () = app.logs.store.flush_wanted() => (),
        }
        if let Err(error) = log_service::api::look_after(&app).await {
            tracing::error!(
                "the logs: {}",
                error.inside().unwrap_or("they cannot be looked after")
            );
        }
    }
}

async fn settle(app: &App) -> Result<(), ApiError> {
    if !app.store.read(transitions::any).await? {
        return Ok(());
    }
    let cx = Context {
        caller: Caller {
            key_id: "service".into(),
            account_id: String::new(),
            role: Role::Administrator,
        },
        now: (app.clock)(),
        request_id: request_id()?,
        config: Arc::clone(&app.config),
        uptime_ms: (app.uptime)(),
    };
    app.change(cx, transitions::settle).await
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn show(folder: &Path, key: &AdministratorFile) {
    print(&format!(
        "This is the first start. The administrator's access key, shown this once:\n  access key id      {}\n  \
         access key secret  {}\nIt is also in {}.\n",
        key.id,
        key.secret,
        folder.join(ADMINISTRATOR_FILE).display()
    ));
}

/// Prints, where somebody reads it.
pub(super) fn print(text: &str) {
    let mut stdout = io::stdout();
    if let Err(error) = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        tracing::warn!("nobody reads the standard output: {error}");
    }
}

/// Logs go to standard error.
pub(super) fn start_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FLOWLOG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
