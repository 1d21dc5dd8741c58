//! What has the certificate renewed: a timer of systemd, or a line for cron.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use super::host::{Host, SHARED};
use super::{MARK, check_path, shell_word};
use crate::{Error, Kind, Result};

const SERVICE: &str = "/etc/systemd/system/sallyport-renew.service";
const TIMER: &str = "/etc/systemd/system/sallyport-renew.timer";
const UNIT: &str = "sallyport-renew.timer";
/// Where systemd is the init (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// What the service does not see (ProtectHome, PrivateTmp), or what is gone after the next start.
const HIDDEN: [&str; 6] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev/shm"];

/// Whether the service will find the program and the folder.
pub(super) fn check(host: &Host<'_>, program: &str, dir: &str) -> Result {
    check_path("the path of the program", program)?;
    check_path("the path of the folder", dir)?;
    if host.is_live() && !host.exists(SYSTEMD) {
        return Ok(()); // cron runs anything
    }
    // Where it really is, behind links, and as it is named.
    let hidden = |path: &str| {
        let real = if host.is_live() { fs::canonicalize(path).unwrap_or_default() } else { PathBuf::new() };
        HIDDEN.iter().find(|dir| Path::new(path).starts_with(dir) || real.starts_with(dir)).copied()
    };
    let copy = format!(
        "install -m 755 {} /usr/local/bin/sallyport, and run that one; or name one with --binary, or pass --no-timer",
        shell_word(program)
    );
    if let Some(hidden) = hidden(program) {
        return Err(usage(format!("systemd's timer cannot run {program}: services do not see {hidden}"), copy));
    }
    if let Some(hidden) = hidden(dir) {
        let remedy = "choose another folder with --dir, such as /etc/sallyport/enroll, or pass --no-timer";
        return Err(usage(format!("systemd's timer cannot use {dir}: services do not see {hidden}"), remedy));
    }
    if !host.is_live() {
        return Ok(()); // the image may get its program later
    }
    match fs::metadata(program) {
        Err(e) => Err(usage(format!("systemd's timer cannot run {program}: {e}"), copy)),
        Ok(file) if !file.is_file() || file.mode() & 0o111 == 0 => {
            Err(usage(format!("systemd's timer cannot run {program}: it is no program"), copy))
        }
        Ok(_) => match changeable(Path::new(program), ROOT) {
            None => Ok(()),
            Some(place) => Err(usage(
                format!(
                    "{} belongs to a user, or others may change it: root's timer must not run {program}",
                    place.display()
                ),
                copy,
            )),
        },
    }
}

/// Who may own what root's timer runs.
const ROOT: u32 = 0;
/// Most links on the way to a program (Linux follows 40).
const MAX_LINKS: usize = 40;

/// The first place on the way to a file, link by link, that somebody beside this owner could put something else in: the file, and each
/// folder and link that leads to it.
fn changeable(path: &Path, owner: u32) -> Option<PathBuf> {
    changeable_from(Path::new("/"), path, owner)
}

/// The same, with nothing said of what is above a folder.
fn changeable_from(top: &Path, path: &Path, owner: u32) -> Option<PathBuf> {
    let (mut rest, mut at) = (parts(path), PathBuf::from("/"));
    let mut links = 0;
    loop {
        if !at.starts_with(top) {
            at.push(rest.pop()?);
            continue;
        }
        let Ok(found) = fs::symlink_metadata(&at) else { return Some(at) };
        // In a folder with the sticky bit nobody replaces what is another's.
        let others = found.mode() & 0o022 != 0 && !(found.is_dir() && found.mode() & 0o1000 != 0);
        if found.uid() != owner || (others && !found.is_symlink()) {
            return Some(at);
        }
        if found.is_symlink() {
            links += 1;
            let Some(target) = fs::read_link(&at).ok().filter(|_| links <= MAX_LINKS) else { return Some(at) };
            at.pop();
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            rest.extend(parts(&target));
        }
        match rest.pop()? {
            part if part == OsStr::new("..") => drop(at.pop()),
            part => at.push(part),
        }
    }
}

/// The names in a path, the last first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

fn usage(cause: String, remedy: impl Into<String>) -> Error {
    Error::new(Kind::Usage, cause, remedy)
}

pub(super) fn install(host: &mut Host<'_>, program: &str, dir: &str) -> Result {
    check(host, program, dir)?;
    if host.is_live() && !host.exists(SYSTEMD) {
        // In a crontab % is the end of the line.
        let word = |text: &str| shell_word(text).replace('%', "\\%");
        host.advise(format!(
            "no systemd runs here: have cron renew the certificate, for example\n17 * * * * root {} enroll renew --wait 10m --dir {}",
            word(program),
            word(dir)
        ));
        return Ok(());
    }
    if !host.is_live() && !host.exists(program) {
        host.advise(format!("the timer runs {program}: put the program there in the image"));
    }
    let service = format!(
        "\
# {MARK}. `sallyport enroll renew --help` says more.
[Unit]
Description=Renew this machine's VPN certificate when it is due
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={} enroll renew --wait 10m --dir {}
NoNewPrivileges=yes
PrivateTmp=yes
ProtectHome=yes
",
        quoted(program),
        quoted(dir)
    );
    let timer = format!(
        "\
# {MARK}. `sallyport enroll renew --help` says more.
[Unit]
Description=Look every hour whether this machine's VPN certificate is due

[Timer]
OnCalendar=hourly
RandomizedDelaySec=1h
Persistent=true

[Install]
WantedBy=timers.target
"
    );
    let hint = "run `systemctl edit --full` on it, or remove it and run `sallyport enroll install`";
    let mut changed = host.put_marked(SERVICE, SHARED, &service, hint)?;
    changed |= host.put_marked(TIMER, SHARED, &timer, hint)?;
    if changed {
        host.tell("systemctl", &["daemon-reload"])?;
    }
    host.tell("systemctl", &["enable", "--now", UNIT])
}

/// A word of a unit file (systemd.service(5)).
fn quoted(word: &str) -> String {
    let doubled = word.replace('%', "%%").replace('$', "$$");
    if doubled.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | ';')) {
        return doubled;
    }
    format!("\"{}\"", doubled.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn uninstall(host: &mut Host<'_>) -> Result {
    if host.exists(TIMER) && host.exists(SYSTEMD) {
        host.tell("systemctl", &["disable", "--now", UNIT])?;
    }
    let mut changed = host.remove_marked(TIMER)?;
    changed |= host.remove_marked(SERVICE)?;
    if changed && host.exists(SYSTEMD) {
        host.tell("systemctl", &["daemon-reload"])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn every_folder_and_link_on_the_way_to_the_program_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        let (own, mode) = (fs::metadata(&base).unwrap().uid(), |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        });
        // What is above the test's folder may be anybody's.
        let place = |path: &Path| changeable_from(&base, path, own);
        let (opt, bin, open) = (base.join("opt"), base.join("opt/bin"), base.join("open"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&open).unwrap();
        let program = bin.join("sallyport");
        fs::write(&program, "x").unwrap();
        for (path, bits) in [(&base, 0o755), (&opt, 0o755), (&bin, 0o755), (&program, 0o755), (&open, 0o777)] {
            mode(path, bits);
        }
        assert_eq!(place(&program), None);
        let (link, chain, around) = (opt.join("link"), opt.join("chain"), opt.join("around"));
        symlink("bin/sallyport", &link).unwrap();
        symlink(&link, &chain).unwrap();
        assert_eq!(place(&chain), None, "links of the same owner, to the same");
        symlink("../open/../opt/bin/sallyport", &around).unwrap();
        assert_eq!(place(&around), Some(open.clone()), "by a folder that anybody changes");
        symlink(&program, open.join("sallyport")).unwrap();
        assert_eq!(place(&open.join("sallyport")), Some(open.clone()), "anybody could put another link there");
        mode(&open, 0o1777);
        assert_eq!(place(&open.join("sallyport")), None, "not in such a folder");
        mode(&opt, 0o775);
        assert_eq!(place(&program), Some(opt.clone()), "a folder above it");
        mode(&opt, 0o755);
        mode(&program, 0o757);
        assert_eq!(place(&link), Some(program.clone()));
        mode(&program, 0o755);
        assert_eq!(changeable_from(&base, &program, own + 1), Some(base.clone()), "another's");
        symlink(base.join("round"), base.join("round")).unwrap();
        assert!(place(&base.join("round")).is_some() && place(&base.join("none")).is_some());
    }

    #[test]
    fn words_of_a_unit_stay_whole() {
        assert_eq!(quoted("/usr/local/bin/sallyport"), "/usr/local/bin/sallyport");
        assert_eq!(quoted("/opt/my vpn/100%/\"x\""), "\"/opt/my vpn/100%%/\\\"x\\\"\"");
    }
}
