//! A fault put into a running cluster on purpose: a majority is set back to an older copy of its state folders, as nobody may.
//! What was acknowledged in between is lost, and the checker must say so.

use std::path::Path;

use super::lab::Lab;

/// Removes what is in a folder; it may be a disk of its own.
fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.expect("removes");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).expect("copies");
        }
    }
    std::fs::set_permissions(to, std::fs::metadata(from).expect("there").permissions()).expect("sets the mode");
}

/// The checker finds what a group lost that was set back.
pub(crate) async fn act(lab: &mut Lab) -> String {
    let all: Vec<u32> = lab.world().readers().into_iter().map(|(n, _)| n).collect();
    let (most, rest) = all.split_at(all.len() / 2 + 1);
    let saved = |state: &Path| state.with_extension("saved");
    lab.whole(all.len()).await;
    for number in most {
        lab.member(*number).kill();
    }
    for number in most {
        let state = lab.member(*number).state.clone();
        copy(&state, &saved(&state));
        lab.restart(*number);
    }
    lab.whole(all.len()).await;
    lab.goes_on("sessions after the copy was made").await;
    // So far all is well.
    lab.conclude().await;
    for number in &all {
        lab.member(*number).kill();
    }
    lab.fault(format!("members {most:?} are set back, {rest:?} stay away"));
    rest.iter().for_each(|number| lab.world().remove_reader(*number));
    for number in most {
        let state = lab.member(*number).state.clone();
        clear(&state);
        copy(&saved(&state), &state);
        lab.restart(*number);
    }
    let verdict = lab.verdict().await.err().unwrap_or_default();
    let finding = verdict.lines().next().unwrap_or_default();
    let names_it =
        ["is lost", "was there", "and has", "shows", "ended and is"].iter().any(|words| finding.contains(words));
    assert!(names_it, "most of the members forgot what was acknowledged, and the checker says: {verdict:?}");
    format!("{} of {} set back on purpose, and found: {finding}", most.len(), all.len())
}
