//! `sallyport operator`: who operates the cluster, and what each may change.

use clap::{Args, Subcommand, ValueEnum};
use sallyport_controller::state::role_name;
use sallyport_proto::v1::{ListOperatorsRequest, OperatorInfo, OperatorRole, SetOperatorRolesRequest};
use serde::Serialize;

use super::{Connection, Context, refused, unix};
use crate::cli::Global;
use crate::error::Result;
use crate::output::{Column, Record, rfc3339};

/// What to do with operators.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the operators and what each may change.
    #[command(alias = "ls")]
    List,
    /// Set what an operator may change. All may look at everything that is no secret.
    #[command(after_help = "\
An operator whose roles nobody has set has all of them. Set them before you issue the certificate: the name is what counts.
Whoever has the role operators can take the others, and whoever has the role keys, or is root on a controller, can have every key.
A restore from a backup that was made before you set them takes them back: `sallyport operator list` shows it.

Examples:
  sallyport operator set helpdesk --role users --role enrollment
  sallyport cert issue --operator helpdesk --out helpdesk
  sallyport operator set auditor --no-role
  sallyport operator set ada --all-roles")]
    Set(Set),
}

/// An operator's roles.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// The operator, as named in the certificate.
    name: String,
    #[command(flatten)]
    roles: Roles,
}

/// Which roles.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Roles {
    /// A role; may be given several times.
    #[arg(long = "role", value_enum, value_name = "ROLE")]
    roles: Vec<Role>,
    /// Every role, and those of later versions.
    #[arg(long)]
    all_roles: bool,
    /// No role: for somebody who only looks.
    #[arg(long)]
    no_role: bool,
}

/// What an operator may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Users, passwords and sessions.
    Users,
    /// Certificates of machines and people: tokens, the machine list, requests, revocation.
    Enrollment,
    /// Gateways, their names and certificates.
    Gateways,
    /// Settings, certificate profiles, pools, the pre-shared key.
    Policy,
    /// Roots, issuing authorities, backups, controllers, the heads of the audit log.
    Keys,
    /// Operators, their certificates and their roles.
    Operators,
}

impl From<Role> for OperatorRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Users => Self::Users,
            Role::Enrollment => Self::Enrollment,
            Role::Gateways => Self::Gateways,
            Role::Policy => Self::Policy,
            Role::Keys => Self::Keys,
            Role::Operators => Self::Operators,
        }
    }
}

#[derive(Serialize)]
struct Row {
    name: String,
    roles: Vec<&'static str>,
    restricted: bool,
    live_certificates: u32,
    not_after: String,
}

impl From<OperatorInfo> for Row {
    fn from(info: OperatorInfo) -> Self {
        Self {
            roles: info.roles().map(role_name).collect(),
            restricted: info.restricted,
            live_certificates: info.certificates,
            not_after: rfc3339(unix(info.not_after_unix_ms)),
            name: info.name,
        }
    }
}

impl Row {
    fn roles(&self) -> String {
        match (self.restricted, self.roles.is_empty()) {
            (false, _) => "all".into(),
            (true, true) => "none: only looks".into(),
            (true, false) => self.roles.join(" "),
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("OPERATOR"),
        Column::left("ROLES"),
        Column::right("LIVE CERTIFICATES"),
        Column::left("CERTIFICATE UNTIL"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.roles(), self.live_certificates.to_string(), self.not_after.clone()]
    }
}

/// What the operator of a name may change.
#[derive(Debug, Serialize)]
pub(super) struct May {
    roles: Vec<&'static str>,
    restricted: bool,
}

/// Asks for it; `None` where the controllers do not say: they may be older.
pub(super) async fn roles_of(connection: &mut Connection, name: &str) -> Option<May> {
    let listed = connection.client.list_operators(ListOperatorsRequest {}).await.ok()?.into_inner().operators;
    let Row { roles, restricted, .. } = listed.into_iter().find(|info| info.name == name).map(Row::from)?;
    Some(May { roles, restricted })
}

impl May {
    /// A line for people.
    pub(super) fn text(&self, name: &str) -> String {
        match (self.restricted, self.roles.is_empty()) {
            (false, _) => format!(
                "{name} may change everything, as nobody has said otherwise: sallyport operator set {name} --role ROLE\n"
            ),
            (true, true) => format!("{name} only looks\n"),
            (true, false) => format!("{name} has the roles {}\n", self.roles.join(", ")),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    let client = &mut context.connection.client;
    match command {
        Command::List => {
            let operators =
                client.list_operators(ListOperatorsRequest {}).await.map_err(refused)?.into_inner().operators;
            let rows: Vec<Row> = operators.into_iter().map(Row::from).collect();
            context.printer.list(&rows, "no operators")
        }
        Command::Set(Set { name, roles }) => {
            let all = roles.all_roles;
            let roles = roles.roles.into_iter().map(|role| OperatorRole::from(role).into()).collect();
            let request = SetOperatorRolesRequest { name, roles, all };
            let info = client.set_operator_roles(request).await.map_err(refused)?.into_inner().info;
            let row = Row::from(info.unwrap_or_default());
            let text = format!("operator {}: {}", row.name, row.roles());
            context.printer.one(&row, &text)
        }
    }
}
