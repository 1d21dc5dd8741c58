//! What clients do: overwrite a register, add to a set, read, and ask again with the same request id until there is an answer.

use std::sync::Arc;
use std::time::Duration;

use super::executor::{self, Random};
use super::world::{Planted, World};
use crate::raft::{Node, ProposeError};
use crate::state::{Action, AddUser, Command, Credentials, Outcome, Reply, SetPsk};

/// One client, until all is calm.
pub(super) async fn run(world: Arc<World>, number: u64) {
    let mut client = Client { random: Random::new(executor::draw()), world, number, next: 0, at: 1 };
    while !client.world.is_calm() && !client.world.is_over() {
        let pause = client.random.millis(1, 150);
        executor::sleep(pause).await;
        match client.random.below(10) {
            0..5 => client.write().await,
            5 => client.add().await,
            _ => client.read().await,
        }
    }
    if !client.world.is_over() {
        client.write().await;
        client.read().await;
    }
}

struct Client {
    world: Arc<World>,
    random: Random,
    number: u64,
    next: u64,
    /// Where it asks first.
    at: u64,
}

impl Client {
    fn request_id(&mut self) -> Vec<u8> {
        self.next += 1;
        ((u128::from(self.number + 1) << 64) | u128::from(self.next)).to_be_bytes().to_vec()
    }

    async fn write(&mut self) {
        let request_id = self.request_id();
        let mut sealed = request_id.clone();
        if self.world.settings.slow_line {
            let length = if self.random.permille(20) { 60_000 } else { self.random.below(6_000) };
            sealed.resize(sealed.len() + length as usize, 0);
        }
        let floor = self.world.history().begins();
        let Some(request_id) = self.submit(request_id, Action::SetPsk(SetPsk { sealed })).await else { return };
        let version = self.world.ledger().version_of(&request_id);
        let Some(version) = version else {
            return self
                .world
                .violated(format!("request {request_id:02x?} was acknowledged, and nobody has applied it"));
        };
        let seen = self.world.history().wrote(floor, version);
        if let Err(what) = seen {
            self.world.violated(what);
        }
    }

    async fn add(&mut self) {
        let request_id = self.request_id();
        let key = format!("user-{}-{}", self.number, self.next);
        let add = AddUser {
            key: key.clone(),
            name: key,
            credentials: Some(Credentials { sealed_nt_hash: vec![7; 16], ..Credentials::default() }),
            enabled: true,
            ..AddUser::default()
        };
        self.submit(request_id, Action::AddUser(add)).await;
    }

    /// Asks until there is an answer; returns the id of the request that was answered.
    async fn submit(&mut self, mut request_id: Vec<u8>, action: Action) -> Option<Vec<u8>> {
        while !self.world.is_over() {
            let at_ms = 1_700_000_000_000 + executor::elapsed_ms() + self.random.below(2_000);
            let command = Command { request_id: request_id.clone(), at_ms, action: Some(action.clone()) };
            let asked = self.ask(move |node| async move { node.propose(command).await }).await;
            if let Some(Reply { outcome }) = asked {
                if !matches!(outcome, Some(Outcome::Done(_))) {
                    let what =
                        format!("request {request_id:02x?} was answered as if it had been done before: {outcome:?}");
                    self.world.violated(what);
                }
                let number = self.number;
                self.world.trace(|| format!("client {number}: {request_id:02x?} is done"));
                return Some(request_id);
            }
            if self.world.settings.planted == Some(Planted::RetryWithNewId) {
                request_id = self.request_id();
            }
        }
        None
    }

    async fn read(&mut self) {
        let careless = self.world.settings.planted == Some(Planted::ReadWithoutIndex);
        let (floor, mut index) = (self.world.history().begins(), None);
        while !self.world.is_over() {
            // Whoever leads says how far a state must be, which anybody can show then.
            if index.is_none() && !careless {
                index = self.ask(|node| async move { node.read_index().await }).await;
                if index.is_none() {
                    continue;
                }
                if self.random.permille(500) {
                    self.elsewhere();
                }
            }
            let wanted = index.unwrap_or_default();
            let shown = self.ask(move |node| async move {
                while node.figures().applied < wanted {
                    executor::sleep(Duration::from_millis(2)).await;
                }
                let state = node.shared().read();
                Ok((state.policy_version(), state.sealed_psk().map(|(sealed, _)| sealed.to_vec()).unwrap_or_default()))
            });
            let Some((version, value)) = shown.await else { continue };
            let number = self.number;
            self.world.trace(|| format!("client {number}: reads version {version}"));
            if self.world.ledger().value(version) != Some(&value) {
                self.world.violated(format!("a read gave version {version} a value that it never had"));
            }
            let seen = self.world.history().read(floor, version);
            if let Err(what) = seen {
                self.world.violated(what);
            }
            return;
        }
    }

    fn elsewhere(&mut self) {
        let ids = self.world.ids();
        self.at = self.random.one_of(&ids).unwrap_or(1);
    }

    /// Asks one node once; `None` is no answer, for whatever reason.
    async fn ask<T, F>(&mut self, question: impl FnOnce(Arc<Node>) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ProposeError>> + Send + 'static,
    {
        let (there, back, patience) =
            (self.random.micros(50, 3_000), self.random.micros(50, 3_000), self.random.millis(100, 2_500));
        let lost = self.random.permille(20);
        executor::sleep(there).await;
        let Some((process, node)) = self.world.node(self.at) else {
            self.elsewhere();
            executor::sleep(Duration::from_millis(20)).await;
            return None;
        };
        // The node goes on when the client has lost patience.
        let asked = executor::spawn_in(process, question(node));
        let answer = executor::timeout(patience, asked).await.flatten();
        executor::sleep(back).await;
        match answer {
            Some(Ok(answer)) if !lost => return Some(answer),
            Some(Err(ProposeError::Elsewhere { id, .. })) if self.random.permille(900) => self.at = id,
            _ => self.elsewhere(),
        }
        let pause = self.random.millis(1, 60);
        executor::sleep(pause).await;
        None
    }
}
