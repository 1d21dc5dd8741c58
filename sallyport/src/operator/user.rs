//! `sallyport user`: who may connect.

use clap::{ArgGroup, Args, Subcommand};
use sallyport_proto::v1::{
    AddUserRequest, ListUsersRequest, RemoveUserRequest, SetPasswordRequest, SetUserEnabledRequest, UnlockUserRequest,
    UpdateUserRequest, User,
};
use serde::Serialize;

use super::{Context, PAGE, pages, refused, unix};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::error::Result;
use crate::output::{Column, Record, age, rfc3339};
use crate::secret::PasswordSource;

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a user; asks for the password.
    #[command(after_help = "\
Examples:
  sallyport user add ada
  sallyport user add printer --address 10.88.0.9 --max-sessions 1
  pwgen -s 20 1 | sallyport user add bob --password-stdin")]
    Add(Add),
    /// List the users.
    #[command(alias = "ls")]
    List {
        /// Only names that contain this.
        filter: Option<String>,
    },
    /// Remove a user and end the user's sessions.
    #[command(alias = "rm")]
    Remove {
        /// The user.
        name: String,
    },
    /// Change what a user was added with; sessions that are up stay as they are.
    #[command(after_help = "\
Examples:
  sallyport user set ada --max-sessions 3
  sallyport user set printer --pool office --address 10.88.0.9
  sallyport user set printer --address \"\" --pool \"\"               any address again, of any pool")]
    Set(Set),
    /// Forget wrong passwords: the user need not wait any more, wherever they were given.
    #[command(after_help = "\
After a number of wrong passwords from one address a user must wait there, and after ten times as many through one gateway the user
must wait at that gateway, from wherever: a stranger who guesses can bring that about. `sallyport setting show` has the number
(lockout-failures) and the time (lockout-time).")]
    Unlock {
        /// The user, as named with the passwords.
        name: String,
    },
    /// Change a password; sessions stay.
    Passwd {
        /// The user.
        name: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Let a user connect again.
    Enable {
        /// The user.
        name: String,
    },
    /// Keep a user out and end the user's sessions.
    Disable {
        /// The user.
        name: String,
    },
}

/// A new user.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The name, compared without regard to case.
    name: String,
    #[command(flatten)]
    password: PasswordSource,
    /// Pool to take addresses from [default: the first with room]
    #[arg(long)]
    pool: Option<String>,
    /// The same address at each connection.
    #[arg(long)]
    address: Option<std::net::Ipv4Addr>,
    /// Most sessions at a time; 0 is what the settings say.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    max_sessions: u32,
    /// Keep the user out until `user enable`.
    #[arg(long)]
    disabled: bool,
    /// A note for people.
    #[arg(long, default_value = "", hide_default_value = true)]
    comment: String,
}

/// What to change of a user.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true).args(["pool", "address", "max_sessions", "comment"])))]
pub(crate) struct Set {
    /// The user.
    name: String,
    /// Pool to take addresses from; "" is the first with room.
    #[arg(long)]
    pool: Option<String>,
    /// The same address at each connection; "" is any.
    #[arg(long, value_parser = address_or_none)]
    address: Option<String>,
    /// Most sessions at a time; 0 is what the settings say.
    #[arg(long, value_name = "NUMBER")]
    max_sessions: Option<u32>,
    /// A note for people.
    #[arg(long)]
    comment: Option<String>,
}

fn address_or_none(text: &str) -> std::result::Result<String, std::net::AddrParseError> {
    if text.is_empty() { Ok(String::new()) } else { text.parse::<std::net::Ipv4Addr>().map(|a| a.to_string()) }
}

#[derive(Serialize)]
struct Row {
    name: String,
    enabled: bool,
    pool: String,
    address: String,
    max_sessions: u32,
    live_sessions: u32,
    chap_md5_possible: bool,
    created: String,
    password_set: String,
    comment: String,
    #[serde(skip)]
    password_age: String,
}

impl From<User> for Row {
    fn from(user: User) -> Self {
        Self {
            password_age: age(unix(user.password_set_unix_ms), unix_now()),
            created: rfc3339(unix(user.created_unix_ms)),
            password_set: rfc3339(unix(user.password_set_unix_ms)),
            name: user.name,
            enabled: user.enabled,
            pool: user.pool,
            address: user.address,
            max_sessions: user.max_sessions,
            live_sessions: user.live_sessions,
            chap_md5_possible: user.chap_md5_possible,
            comment: user.comment,
        }
    }
}

impl Row {
    /// Pool, address and limit in words.
    fn bounds(&self) -> String {
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let sessions = match self.max_sessions {
            0 => "as many sessions as the settings say".to_owned(),
            1 => "at most 1 session".to_owned(),
            n => format!("at most {n} sessions"),
        };
        format!("pool {}, address {}, {sessions}", or(&self.pool, "any"), or(&self.address, "any"))
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("USER"),
        Column::left("STATE"),
        Column::right("SESSIONS"),
        Column::left("POOL"),
        Column::left("ADDRESS"),
        Column::right("PASSWORD AGE"),
        Column::left("COMMENT"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            if self.enabled { "enabled" } else { "disabled" }.into(),
            self.live_sessions.to_string(),
            self.pool.clone(),
            self.address.clone(),
            self.password_age.clone(),
            self.comment.clone(),
        ]
    }
}

#[derive(Serialize)]
struct Unlocked<'a> {
    user: &'a str,
    /// Addresses and gateways whose wrong passwords counted.
    forgotten: u32,
}

#[derive(Serialize)]
struct Changed<'a> {
    user: &'a str,
    ended_sessions: u32,
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    match command {
        Command::Add(add) => {
            let password = add.password.read(&add.name)?;
            let mut context = Context::open(global).await?;
            let request = AddUserRequest {
                name: add.name,
                password: Some(password),
                pool: add.pool.unwrap_or_default(),
                address: add.address.map(|a| a.to_string()).unwrap_or_default(),
                max_sessions: add.max_sessions,
                disabled: add.disabled,
                comment: add.comment,
            };
            let response = context.connection.client.add_user(request).await.map_err(refused)?.into_inner();
            let row = Row::from(response.user.unwrap_or_default());
            let state = if row.enabled { "" } else { ", disabled" };
            context.printer.one(&row, &format!("added user {}{state}", row.name))
        }
        Command::List { filter } => {
            let mut context = Context::open(global).await?;
            let users = list(&mut context, filter.unwrap_or_default()).await?;
            let rows: Vec<Row> = users.into_iter().map(Row::from).collect();
            context.printer.list(&rows, "no users; `sallyport user add NAME` adds one")
        }
        Command::Remove { name } => {
            let mut context = Context::open(global).await?;
            let request = RemoveUserRequest { name: name.clone() };
            let ended =
                context.connection.client.remove_user(request).await.map_err(refused)?.into_inner().ended_sessions;
            changed(&context, "removed", &name, ended)
        }
        Command::Set(set) => {
            let mut context = Context::open(global).await?;
            let Set { name, pool, address, max_sessions, comment } = set;
            let request = UpdateUserRequest { name, pool, address, max_sessions, comment };
            let response = context.connection.client.update_user(request).await.map_err(refused)?.into_inner();
            let row = Row::from(response.user.unwrap_or_default());
            context.printer.one(&row, &format!("changed user {}: {}", row.name, row.bounds()))
        }
        Command::Unlock { name } => {
            let mut context = Context::open(global).await?;
            let request = UnlockUserRequest { name: name.clone() };
            let forgotten =
                context.connection.client.unlock_user(request).await.map_err(refused)?.into_inner().forgotten;
            let text = match forgotten {
                0 => format!("no wrong passwords counted for user {name}"),
                n => format!("unlocked user {name}: wrong passwords from {n} places are forgotten"),
            };
            context.printer.one(&Unlocked { user: &name, forgotten }, &text)
        }
        Command::Passwd { name, password } => {
            let password = Some(password.read(&name)?);
            let mut context = Context::open(global).await?;
            let request = SetPasswordRequest { name: name.clone(), password };
            context.connection.client.set_password(request).await.map_err(refused)?;
            context.printer.one(&Changed { user: &name, ended_sessions: 0 }, &format!("changed the password of {name}"))
        }
        Command::Enable { name } => set_enabled(global, name, true).await,
        Command::Disable { name } => set_enabled(global, name, false).await,
    }
}

async fn list(context: &mut Context, name_contains: String) -> Result<Vec<User>> {
    let client = &mut context.connection.client;
    pages(async |page_token| {
        let request = ListUsersRequest { page_size: PAGE, page_token, name_contains: name_contains.clone() };
        let response = client.list_users(request).await.map_err(refused)?.into_inner();
        Ok((response.users, response.next_page_token))
    })
    .await
}

async fn set_enabled(global: &Global, name: String, enabled: bool) -> Result {
    let mut context = Context::open(global).await?;
    let request = SetUserEnabledRequest { name: name.clone(), enabled };
    let response = context.connection.client.set_user_enabled(request).await.map_err(refused)?;
    changed(&context, if enabled { "enabled" } else { "disabled" }, &name, response.into_inner().ended_sessions)
}

fn changed(context: &Context, what: &str, user: &str, ended_sessions: u32) -> Result {
    let ended = match ended_sessions {
        0 => String::new(),
        1 => ", ended 1 session".to_owned(),
        n => format!(", ended {n} sessions"),
    };
    context.printer.one(&Changed { user, ended_sessions }, &format!("{what} user {user}{ended}"))
}
