//! libreswan: key and certificates in its NSS database, the connection in `/etc/ipsec.d`.

use std::net::IpAddr;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use sallyport_ca::pkcs12::{Contents, Protection};
use sallyport_ca::{SecureRandom, pem, pkcs12};
use zeroize::Zeroizing;

use super::host::{Host, SHARED};
use super::{Connection, MARK};
use crate::{Error, Identity, Result};

const CONF: &str = "/etc/ipsec.d/sallyport.conf";
const MAIN: &str = "/etc/ipsec.conf";
/// Where pluto takes orders.
const PLUTO: &str = "/run/pluto/pluto.ctl";
/// The database: of Debian, Fedora and RHEL 9, then of older ones.
const DATABASES: [&str; 2] = ["/var/lib/ipsec/nss", "/etc/ipsec.d"];
/// The certificate's name in it.
const NICKNAME: &str = "sallyport";
/// What is in the database: SHA-256 of the machine's certificate and of the authorities'.
const INSTALLED: &str = "/etc/ipsec.d/.sallyport-installed";

pub(super) fn is_there(host: &Host<'_>) -> bool {
    host.exists("/etc/ipsec.d")
        && (host.exists(DATABASES[0]) || host.exists("/etc/ipsec.d/cert9.db") || host.has("pluto"))
        || host.exists("/usr/libexec/ipsec/pluto")
}

fn database(host: &Host<'_>) -> &'static str {
    let used = DATABASES.into_iter().find(|dir| host.exists(&format!("{dir}/cert9.db")));
    used.unwrap_or(DATABASES[0])
}

/// Says whether anything changed.
pub(super) fn credentials(host: &mut Host<'_>, identity: &Identity, rng: &dyn SecureRandom) -> Result<bool> {
    let all = identity.roots.iter().chain(&identity.chain);
    let mut state = format!("{}\n", identity.certificate.fingerprint);
    all.clone().for_each(|der| state += &format!("{}\n", sallyport_ca::Fingerprint::of(der)));
    if host.read(INSTALLED)?.is_some_and(|there| *there == state.as_bytes()) {
        return Ok(false);
    }
    for tool in ["certutil", "pk12util"] {
        if !host.has(tool) {
            return Err(Error::machine(
                format!("libreswan's database needs {tool}, which is not installed"),
                "apt-get install libnss3-tools (or dnf install nss-tools)",
            ));
        }
    }
    let folder = host.path(database(host));
    let db = format!("sql:{}", folder.display());
    if !folder.join("cert9.db").exists() {
        crate::files::make_dir(&folder, 0o700)?;
        must(host, "certutil", &["-N", "--empty-password", "-d", &db])?;
    }
    let key = identity.key.pkcs8()?;
    let password = password(rng)?;
    let contents = Contents { key: &key, certificate: identity.certificate.der(), authorities: &[], name: NICKNAME };
    let packed = host.secret("sallyport.p12", &pkcs12::encode(&contents, &password, Protection::Modern, rng)?)?;
    let words = host.secret("sallyport.p12.password", password.as_bytes())?;
    // NSS has one nickname for each subject, so the pair before it goes first; a crash here is mended by the next run,
    // because the note of what is installed is written last.
    host.remove(INSTALLED)?;
    forget(host, &db)?;
    let (packed, words) = (packed.path().display().to_string(), words.path().display().to_string());
    must(host, "pk12util", &["-i", &packed, "-d", &db, "-w", &words, "-K", ""])?;
    for (n, der) in all.enumerate() {
        let file = host.secret("sallyport-ca.pem", pem::encode("CERTIFICATE", der).as_bytes())?;
        let trust = if n < identity.roots.len() { "CT,," } else { ",," };
        let path = file.path().display().to_string();
        must(host, "certutil", &["-A", "-n", &authority(n), "-t", trust, "-d", &db, "-a", "-i", &path])?;
    }
    host.put(INSTALLED, SHARED, state.as_bytes())?;
    Ok(true)
}

fn authority(n: usize) -> String {
    format!("{NICKNAME}-ca-{n}")
}

/// 120 random bits.
pub(crate) fn password(rng: &dyn SecureRandom) -> Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0_u8; 15]);
    rng.fill(bytes.as_mut_slice()).map_err(|_| Error::machine("the random source failed", ""))?;
    Ok(Zeroizing::new(Base64UrlUnpadded::encode_string(bytes.as_slice())))
}

/// Removes the pair and the authorities of before, if there are any: `certutil` fails where there are none.
fn forget(host: &mut Host<'_>, db: &str) -> Result {
    host.run("certutil", &["-F", "-n", NICKNAME, "-d", db])?;
    host.run("certutil", &["-D", "-n", NICKNAME, "-d", db])?;
    for n in 0..16 {
        if !host.run("certutil", &["-D", "-n", &authority(n), "-d", db])?.success {
            break;
        }
    }
    Ok(())
}

fn must(host: &mut Host<'_>, program: &str, arguments: &[&str]) -> Result {
    let ran = host.run(program, arguments)?;
    if ran.success {
        return Ok(());
    }
    Err(Error::machine(
        format!("{program} {} failed: {}", arguments.first().unwrap_or(&""), crate::error::foreign(&ran.said)),
        "if the database has a password, install the certificate by hand from the folder of sallyport enroll",
    ))
}

pub(super) fn connection(host: &mut Host<'_>, connection: &Connection) -> Result {
    host.put_marked(CONF, SHARED, &conf(connection), "move it away and run `sallyport enroll install` to have ours")?;
    let main = host.read(MAIN)?;
    let main = main.as_deref().map(|t| String::from_utf8_lossy(t)).unwrap_or_default();
    if !main.lines().any(|l| l.trim_start().starts_with("include") && l.contains("/etc/ipsec.d/")) {
        host.advise(format!("{MAIN} does not include /etc/ipsec.d/*.conf: add the line `include {CONF}`"));
    }
    if !main.contains("ikev1-policy=accept") {
        host.advise(format!(
            "libreswan 5 refuses IKEv1 unless `config setup` in {MAIN} has the line `ikev1-policy=accept`"
        ));
    }
    Ok(())
}

/// The connection as libreswan reads it.
pub(crate) fn conf(connection: &Connection) -> String {
    let gateway = &connection.gateway;
    let id = if gateway.parse::<IpAddr>().is_ok() { gateway.clone() } else { format!("@{gateway}") };
    format!(
        "\
# {MARK}. Renewals leave it as it is.
conn sallyport
    type=transport
    ikev2=no
    authby=rsasig
    auto=add
    left=%defaultroute
    leftcert={NICKNAME}
    leftid=%fromcert
    leftsendcert=always
    leftprotoport=17/1701
    right={gateway}
    rightid={id}
    rightprotoport=17/1701
    rekey=yes
    pfs=no
"
    )
}

/// Has a pluto that runs read it all again.
pub(super) fn load(host: &mut Host<'_>) -> Result {
    if !host.is_live() {
        return Ok(());
    }
    if host.exists(PLUTO) {
        host.tell("ipsec", &["auto", "--replace", "sallyport"])
    } else {
        host.advise("libreswan does not run: start it with `systemctl restart ipsec`");
        Ok(())
    }
}

pub(super) fn uninstall(host: &mut Host<'_>) -> Result {
    if host.is_live() && host.exists(PLUTO) && host.exists(CONF) {
        host.tell("ipsec", &["auto", "--delete", "sallyport"])?;
    }
    host.remove_marked(CONF)?;
    let folder = host.path(database(host));
    if host.exists(INSTALLED) && host.has("certutil") {
        forget(host, &format!("sql:{}", folder.display()))?;
    }
    host.remove(INSTALLED)?;
    Ok(())
}
