//! A PowerShell script for Windows 10 and 11: certificates into the computer's stores, and an L2TP connection.
//!
//! Without `-L2tpPsk` Windows authenticates an L2TP connection by a certificate of the computer (`L2tpIPsecAuth` of
//! `Get-VpnConnection` then says `Certificate`). `Set-VpnConnectionIPsecConfiguration` makes it offer what the gateway likes best
//! instead of 3DES and SHA-1 first.

use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

use super::{File, Profile};
use crate::Identity;
use crate::install::{Connection, MARK};

pub(super) fn make(identity: &Identity, connection: &Connection, p12: &[u8], name: &str) -> Profile {
    let mut text = Zeroizing::new(String::with_capacity(16_384 + 3 * p12.len()));
    let title = quoted(&format!("Sallyport {}", connection.gateway));
    let server = quoted(&connection.gateway);
    text.push_str(&format!(
        "\
# {MARK} (sallyport profile windows): run as administrator,
#   powershell -ExecutionPolicy Bypass -File {name}.ps1
# It asks for the password that `sallyport profile` printed.
#Requires -RunAsAdministrator
$ErrorActionPreference = 'Stop'
$Name = {title}
$Server = {server}

function Add-Certificate([string] $Store, [string] $Base64) {{
    $certificate = [Security.Cryptography.X509Certificates.X509Certificate2]::new([Convert]::FromBase64String($Base64))
    $target = [Security.Cryptography.X509Certificates.X509Store]::new($Store, 'LocalMachine')
    $target.Open('ReadWrite')
    try {{ $target.Add($certificate) }} finally {{ $target.Close() }}
}}

"
    ));
    for (store, list) in [("Root", &identity.roots), ("CA", &identity.chain)] {
        for der in list {
            text.push_str(&format!("Add-Certificate '{store}' '{}'\n", Base64::encode_string(der)));
        }
    }
    text.push_str(&format!(
        "
$file = [IO.Path]::GetTempFileName()
try {{
    [IO.File]::WriteAllBytes($file, [Convert]::FromBase64String('{}'))
    $password = Read-Host -AsSecureString 'Password of the certificate'
    # Not exportable: without -Exportable the key cannot be copied off this computer.
    Import-PfxCertificate -FilePath $file -CertStoreLocation Cert:\\LocalMachine\\My -Password $password | Out-Null
}} finally {{
    Remove-Item -Force $file
}}

",
        Zeroizing::new(Base64::encode_string(p12)).as_str()
    ));
    text.push_str(
        "\
if (Get-VpnConnection -AllUserConnection -Name $Name -ErrorAction SilentlyContinue) {
    Remove-VpnConnection -AllUserConnection -Name $Name -Force
}
# Without -L2tpPsk the computer's certificate is used. The warning that this prints is about a pre-shared key.
Add-VpnConnection -AllUserConnection -Name $Name -ServerAddress $Server -TunnelType L2tp `
    -AuthenticationMethod MSChapv2 -EncryptionLevel Required -SplitTunneling -RememberCredential -Force
Set-VpnConnectionIPsecConfiguration -AllUserConnection -ConnectionName $Name `
    -EncryptionMethod AES256 -IntegrityCheckMethod SHA256 -DHGroup ECP256 `
    -CipherTransformConstants GCMAES256 -AuthenticationTransformConstants GCMAES256 -PfsGroup None -Force
",
    );
    // Behind NAT, towards a gateway behind NAT: off in Windows unless this says so.
    text.push_str(
        "
$agent = 'HKLM:\\SYSTEM\\CurrentControlSet\\Services\\PolicyAgent'
if ((Get-ItemProperty $agent -ErrorAction SilentlyContinue).AssumeUDPEncapsulationContextOnSendRule -ne 2) {
    Set-ItemProperty $agent -Name AssumeUDPEncapsulationContextOnSendRule -Type DWord -Value 2
    Write-Host 'Restart the computer once: it may now connect where both ends are behind NAT.'
}
",
    );
    let user = connection.user.as_deref().map_or_else(String::new, |u| format!(" with user {u}"));
    text.push_str(&format!(
        "Write-Host {}\n",
        quoted(&format!("Done: connect to Sallyport {}{user}.", connection.gateway))
    ));
    let file = format!("{name}.ps1");
    // PowerShell 5 reads a file as UTF-8 only with this mark.
    let content = Zeroizing::new([b"\xef\xbb\xbf".as_slice(), text.replace('\n', "\r\n").as_bytes()].concat());
    Profile {
        steps: vec![
            format!("copy {file} to the computer; as administrator: powershell -ExecutionPolicy Bypass -File {file}"),
            "give it the password below, then delete the file".to_owned(),
            format!("connect: Settings, Network, VPN, `Sallyport {}`", connection.gateway),
        ],
        files: vec![File { name: file, public: false, content }],
        password: None,
    }
}

/// A string of PowerShell in single quotes, where nothing but quotes means anything. It takes typographic ones for quotes, too.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        if matches!(c, '\'' | '\u{2018}'..='\u{201b}') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    out
}
