//! In whose name a change is made: so the audit log can say it, wherever in this process the change is put into the log.

use crate::state::{Action, Attributed, Command, LEDGER_LEVEL};

/// An operator.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    /// The name.
    pub(crate) name: String,
    /// Serial number of the certificate.
    pub(crate) serial: String,
    /// The address of the connection, if it is known.
    pub(crate) source: String,
}

tokio::task_local! {
    static ACTOR: Actor;
}

/// Does something in an operator's name. What it hands to other tasks is nobody's.
pub(crate) async fn in_the_name_of<T>(actor: Actor, work: impl Future<Output = T>) -> T {
    ACTOR.scope(actor, work).await
}

/// The same change with the name of whoever makes it, in a group of this level that can write it.
pub(crate) fn attributed(level: u32, action: Action) -> Action {
    if level < LEDGER_LEVEL {
        return action;
    }
    let Ok(actor) = ACTOR.try_with(Clone::clone) else { return action };
    let inner = Command { request_id: Vec::new(), at_ms: 0, action: Some(action) };
    Action::Attributed(Attributed {
        actor: actor.name,
        actor_serial: actor.serial,
        source: actor.source,
        action: Some(Box::new(inner)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ClearPsk;

    #[tokio::test]
    async fn a_change_has_the_name_of_the_operator_in_whose_call_it_is_made_and_of_nobody_else() {
        let plain = Action::ClearPsk(ClearPsk {});
        assert_eq!(attributed(LEDGER_LEVEL, plain.clone()), plain);
        let ada = Actor { name: "ada".into(), serial: "0a".into(), source: "192.0.2.1".into() };
        let (named, older) = in_the_name_of(ada, async {
            (attributed(LEDGER_LEVEL, plain.clone()), attributed(LEDGER_LEVEL - 1, plain.clone()))
        })
        .await;
        let Action::Attributed(by) = named else { panic!("{named:?}") };
        assert_eq!((by.actor.as_str(), by.action.and_then(|inner| inner.action)), ("ada", Some(plain.clone())));
        assert_eq!(older, plain, "members of an older version would not understand it");
    }
}
