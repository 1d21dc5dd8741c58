//! The table of RFC 1661 §4.1 as it is printed there, against the function.

use super::*;

const STATES: [State; 10] = [
    State::Initial,
    State::Starting,
    State::Closed,
    State::Stopped,
    State::Closing,
    State::Stopping,
    State::ReqSent,
    State::AckRcvd,
    State::AckSent,
    State::Opened,
];

/// One row an event, one cell a state: `actions/new state`, with the RFC's footnote letters left on.
const TABLE: [(Event, [&str; 10]); 16] = [
    (Event::Up, ["2", "irc,scr/6", "-", "-", "-", "-", "-", "-", "-", "-"]),
    (Event::Down, ["-", "-", "0", "tls/1", "0", "1", "1", "1", "1", "tld/1"]),
    (Event::Open, ["tls/1", "1", "irc,scr/6", "3r", "5r", "5r", "6", "7", "8", "9r"]),
    (Event::Close, ["0", "tlf/0", "2", "2", "4", "4", "irc,str/4", "irc,str/4", "irc,str/4", "tld,irc,str/4"]),
    (Event::ToPlus, ["-", "-", "-", "-", "str/4", "str/5", "scr/6", "scr/6", "scr/8", "-"]),
    (Event::ToMinus, ["-", "-", "-", "-", "tlf/2", "tlf/3", "tlf/3p", "tlf/3p", "tlf/3p", "-"]),
    (Event::RcrPlus, ["-", "-", "sta/2", "irc,scr,sca/8", "4", "5", "sca/8", "sca,tlu/9", "sca/8", "tld,scr,sca/8"]),
    (Event::RcrMinus, ["-", "-", "sta/2", "irc,scr,scn/6", "4", "5", "scn/6", "scn/7", "scn/6", "tld,scr,scn/6"]),
    (Event::Rca, ["-", "-", "sta/2", "sta/3", "4", "5", "irc/7", "scr/6x", "irc,tlu/9", "tld,scr/6x"]),
    (Event::Rcn, ["-", "-", "sta/2", "sta/3", "4", "5", "irc,scr/6", "scr/6x", "irc,scr/8", "tld,scr/6x"]),
    (Event::Rtr, ["-", "-", "sta/2", "sta/3", "sta/4", "sta/5", "sta/6", "sta/6", "sta/6", "tld,zrc,sta/5"]),
    (Event::Rta, ["-", "-", "2", "3", "tlf/2", "tlf/3", "6", "6", "8", "tld,scr/6"]),
    (Event::Ruc, ["-", "-", "scj/2", "scj/3", "scj/4", "scj/5", "scj/6", "scj/7", "scj/8", "scj/9"]),
    (Event::RxjPlus, ["-", "-", "2", "3", "4", "5", "6", "6", "8", "9"]),
    (Event::RxjMinus, ["-", "-", "tlf/2", "tlf/3", "tlf/2", "tlf/3", "tlf/3", "tlf/3", "tlf/3", "tld,irc,str/5"]),
    (Event::Rxr, ["-", "-", "2", "3", "4", "5", "6", "7", "8", "ser/9"]),
];

fn printed(cell: Option<(State, &[Action])>) -> String {
    let Some((state, actions)) = cell else { return "-".into() };
    let number = STATES.iter().position(|s| *s == state).expect("a state");
    let actions: Vec<String> = actions.iter().map(|a| format!("{a:?}").to_lowercase()).collect();
    if actions.is_empty() { number.to_string() } else { format!("{}/{number}", actions.join(",")) }
}

#[test]
fn every_cell_is_as_the_rfc_prints_it() {
    for (event, row) in TABLE {
        for (state, cell) in STATES.into_iter().zip(row) {
            let expected = cell.trim_end_matches(['r', 'p', 'x']);
            assert_eq!(printed(transition(state, event)), expected, "{event:?} in {state:?}");
        }
    }
}

#[test]
fn the_restart_timer_runs_where_the_table_has_timeouts() {
    for state in STATES {
        assert_eq!(state.is_timed(), transition(state, Event::ToPlus).is_some(), "{state:?}");
    }
}
