//! Linux with strongSwan or libreswan, and xl2tpd: files to be put in place by hand.

use sallyport_ca::pem;
use zeroize::Zeroizing;

use super::{File, Profile};
use crate::install::{Connection, Software, l2tp, libreswan, strongswan};
use crate::{Error, Identity, Kind, Result};

pub(super) fn strongswan(identity: &Identity, connection: &Connection) -> Profile {
    let mut files = vec![
        File::private("key.pem", identity.key.pem().as_bytes()),
        File::public("cert.pem", identity.certificate.pem()),
        File::public("sallyport.conf", strongswan::conf(connection)),
    ];
    let authorities = authorities(identity, &mut files);
    let mut steps = vec![
        "on that machine, as root: install strongSwan with swanctl, and xl2tpd".to_owned(),
        "install -m 600 key.pem /etc/swanctl/private/sallyport.pem && install -m 644 cert.pem /etc/swanctl/x509/sallyport.pem".to_owned(),
        format!("install -m 644 {} /etc/swanctl/x509ca/", authorities.join(" ")),
        "install -m 644 sallyport.conf /etc/swanctl/conf.d/ && swanctl --load-all".to_owned(),
    ];
    l2tp(connection, &mut files, &mut steps);
    steps.push("swanctl --initiate --child sallyport && echo 'c sallyport' > /run/xl2tpd/l2tp-control".to_owned());
    Profile { files, password: None, steps }
}

pub(super) fn libreswan(identity: &Identity, connection: &Connection, p12: Zeroizing<Vec<u8>>) -> Result<Profile> {
    let algorithm = identity.key.public_key().algorithm();
    if !Software::Libreswan.takes(algorithm) {
        return Err(Error::new(
            Kind::Usage,
            format!("libreswan cannot use an {algorithm} key in IKEv1"),
            "issue a certificate with an RSA key for that machine",
        ));
    }
    let mut files = vec![
        File { name: "sallyport.p12".to_owned(), public: false, content: p12 },
        File::public("sallyport.conf", libreswan::conf(connection)),
    ];
    let mut steps = vec![
        "on that machine, as root: install libreswan, libnss3-tools (Fedora: nss-tools) and xl2tpd".to_owned(),
        "pk12util -i sallyport.p12 -d sql:/var/lib/ipsec/nss, with the password below".to_owned(),
    ];
    for (n, file) in authorities(identity, &mut files).iter().enumerate() {
        let trust = if n < identity.roots.len() { "CT,," } else { ",," };
        steps.push(format!("certutil -A -a -i {file} -n sallyport-ca-{n} -t {trust} -d sql:/var/lib/ipsec/nss"));
    }
    steps.push("install -m 644 sallyport.conf /etc/ipsec.d/ && systemctl restart ipsec".to_owned());
    l2tp(connection, &mut files, &mut steps);
    steps.push("ipsec auto --up sallyport && echo 'c sallyport' > /run/xl2tpd/l2tp-control".to_owned());
    Ok(Profile { files, password: None, steps })
}

/// The authorities' certificates, one a file, roots first; their names.
fn authorities(identity: &Identity, files: &mut Vec<File>) -> Vec<String> {
    let mut names = Vec::new();
    for (n, der) in identity.roots.iter().chain(&identity.chain).enumerate() {
        let name = if n == 0 { "sallyport-ca.pem".to_owned() } else { format!("sallyport-ca-{n}.pem") };
        files.push(File::public(&name, pem::encode("CERTIFICATE", der).to_string()));
        names.push(name);
    }
    names
}

fn l2tp(connection: &Connection, files: &mut Vec<File>, steps: &mut Vec<String>) {
    let user = connection.user.as_deref().unwrap_or("USER");
    let options = format!("name \"{user}\"\npassword \"PASSWORD\"\n{}", l2tp::FIXED);
    files.push(File::private("options.sallyport", options.as_bytes()));
    files.push(File::public("xl2tpd.conf", format!("[global]\nport = 1701\n\n{}", l2tp::section(&connection.gateway))));
    steps.push(format!(
        "write the password into options.sallyport, then install -m 600 options.sallyport {}",
        l2tp::OPTIONS
    ));
    steps.push(
        "append the [lac sallyport] of xl2tpd.conf to /etc/xl2tpd/xl2tpd.conf, and systemctl restart xl2tpd".to_owned(),
    );
}
