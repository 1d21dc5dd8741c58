//! `sallyport session`: who is connected.

use clap::Subcommand;
use sallyport_proto::v1::{KillSessionRequest, ListSessionsRequest, SessionInfo};
use serde::Serialize;

use super::{Connection, Context, PAGE, names, pages, refused, unix};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::error::Result;
use crate::output::{Column, Printer, Record, age, rfc3339};

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the sessions.
    #[command(alias = "ls")]
    List {
        /// Only of this user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Only on this gateway.
        #[arg(long, value_name = "NAME")]
        gateway: Option<String>,
    },
    /// End a session. The user may connect again; `user disable` keeps the user out.
    Kill {
        /// Its id, or a unique beginning of at least 4 digits.
        id: String,
        /// Why, for the records.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
}

#[derive(Serialize)]
struct Row {
    id: String,
    state: &'static str,
    user: String,
    address: String,
    pool: String,
    gateway: String,
    remote: String,
    machine: String,
    machine_auth: &'static str,
    certificate_serial: String,
    user_auth: &'static str,
    esp_suite: String,
    host_name: String,
    created: String,
    up: String,
    rx_bytes: u64,
    tx_bytes: u64,
    rx_packets: u64,
    tx_packets: u64,
    dropped: u64,
    #[serde(skip)]
    age: String,
}

impl From<SessionInfo> for Row {
    fn from(session: SessionInfo) -> Self {
        let (state, method) = (session.state(), session.auth_method());
        let machine = session.machine.unwrap_or_default();
        let tunnel = session.tunnel.unwrap_or_default();
        let counters = session.counters.unwrap_or_default();
        Self {
            age: age(
                unix(if session.up_unix_ms == 0 { session.created_unix_ms } else { session.up_unix_ms }),
                unix_now(),
            ),
            id: session.session_id,
            state: names::session_state(state),
            user: session.user,
            address: session.address,
            pool: session.pool,
            gateway: session.gateway,
            remote: session.remote,
            machine_auth: names::machine_auth(machine.auth()),
            machine: machine.name,
            certificate_serial: machine.certificate_serial,
            user_auth: names::auth_method(method),
            esp_suite: tunnel.esp_suite,
            host_name: tunnel.host_name,
            created: rfc3339(unix(session.created_unix_ms)),
            up: rfc3339(unix(session.up_unix_ms)),
            rx_bytes: counters.rx_bytes,
            tx_bytes: counters.tx_bytes,
            rx_packets: counters.rx_packets,
            tx_packets: counters.tx_packets,
            dropped: counters.dropped,
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("SESSION"),
        Column::left("USER"),
        Column::left("MACHINE"),
        Column::left("ADDRESS"),
        Column::left("REMOTE"),
        Column::left("GATEWAY"),
        Column::left("STATE"),
        Column::right("AGE"),
        Column::right("IN"),
        Column::right("OUT"),
        Column::left("ESP"),
    ];

    fn cells(&self) -> Vec<String> {
        let machine = if self.machine.is_empty() { self.machine_auth.to_owned() } else { self.machine.clone() };
        vec![
            self.id.clone(),
            self.user.clone(),
            machine,
            self.address.clone(),
            self.remote.clone(),
            self.gateway.clone(),
            self.state.into(),
            self.age.clone(),
            names::bytes(self.rx_bytes),
            names::bytes(self.tx_bytes),
            self.esp_suite.clone(),
        ]
    }
}

#[derive(Serialize)]
struct Killed {
    session: String,
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    match command {
        Command::List { user, gateway } => {
            let sessions = list(&mut context.connection, user, gateway).await?;
            let rows: Vec<Row> = sessions.into_iter().map(Row::from).collect();
            context.printer.list(&rows, NONE)
        }
        Command::Kill { id, reason } => {
            let request = KillSessionRequest { session_id: id, reason };
            let response = context.connection.client.kill_session(request).await.map_err(refused)?;
            let killed = Killed { session: response.into_inner().session_id };
            context.printer.one(&killed, &format!("told the gateway to end session {}", killed.session))
        }
    }
}

/// The sessions, as `session list` shows them.
pub(crate) async fn list(
    connection: &mut Connection,
    user: Option<String>,
    gateway: Option<String>,
) -> Result<Vec<SessionInfo>> {
    let (user, gateway) = (user.unwrap_or_default(), gateway.unwrap_or_default());
    pages(async |page_token| {
        let request = ListSessionsRequest { page_size: PAGE, page_token, user: user.clone(), gateway: gateway.clone() };
        let response = connection.client.list_sessions(request).await.map_err(refused)?.into_inner();
        Ok((response.sessions, response.next_page_token))
    })
    .await
}

/// The text that `session list` prints.
pub(crate) fn render(printer: Printer, sessions: Vec<SessionInfo>) -> String {
    printer.render_list(&sessions.into_iter().map(Row::from).collect::<Vec<_>>(), NONE)
}

const NONE: &str = "no sessions; `sallyport attempt list --failed` shows who tried";
