//! A key that is made in a PKCS #11 token, or in a TPM behind its module, and never leaves it.
//!
//! Instead of the key `key.pem` says where it is: a URI (RFC 7512), the key's CKA_ID and the public half. So what only looks at the
//! machine's certificate needs no token and no PIN.

mod tls;
mod uri;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use rustls::sign::SigningKey;
use sallyport_ca::{KeyAlgorithm, PublicKey, SecureRandom, pem};
use sallyport_pkcs11::cryptoki::session::Session;
use sallyport_pkcs11::{Place, Problem, Scheme, Trouble};
use zeroize::Zeroizing;

pub use uri::TokenPlace;

use crate::{Error, Folder, KeyStore, Kind, Result, files};

/// What stands before the URI in `key.pem`.
const HEAD: &str = "# The private key is in a token and never leaves it.\n";
const ID: &str = "id: ";
/// The label of the keys, for people who look into the token.
const LABEL: &str = "sallyport";

/// A key in a token.
#[derive(Clone, Debug)]
pub struct TokenKey {
    place: TokenPlace,
    /// CKA_ID.
    id: [u8; 16],
    public: PublicKey,
}

impl TokenKey {
    /// A new one, made in the token.
    pub fn generate(place: &TokenPlace, algorithm: KeyAlgorithm, rng: &dyn SecureRandom) -> Result<Self> {
        let mut id = [0; 16];
        rng.fill(&mut id).map_err(|_| Error::machine("the random source failed", ""))?;
        let public = work(place, |session| sallyport_pkcs11::generate(session, algorithm, &id, LABEL))?;
        Ok(Self { place: place.clone(), id, public })
    }

    /// Where it is.
    pub fn place(&self) -> &TokenPlace {
        &self.place
    }

    /// Its CKA_ID in hexadecimal digits: the handle of strongSwan.
    pub fn handle(&self) -> String {
        self.id.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Its token's PIN.
    pub(crate) fn pin(&self) -> Result<Zeroizing<Vec<u8>>> {
        pin(&self.place)
    }

    /// The key of a `key.pem` that says where it is.
    pub(crate) fn parse(text: &[u8]) -> Option<Result<Self>> {
        let text = core::str::from_utf8(text).ok()?;
        let uri = text.lines().find(|line| line.starts_with("pkcs11:"))?;
        Some(Self::read(uri, text))
    }

    fn read(uri: &str, text: &str) -> Result<Self> {
        let unusable = || Error::machine("key.pem names a key in a token, but not which", "enroll anew");
        let id = text.lines().find_map(|line| line.strip_prefix(ID)).ok_or_else(unusable)?;
        let mut bytes = [0; 16];
        if base16ct(id.trim(), &mut bytes).is_none() {
            return Err(unusable());
        }
        let public = PublicKey::from_spki_der(&pem::public_key(text.as_bytes())?)?;
        Ok(Self { place: uri.parse()?, id: bytes, public })
    }

    fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
        let algorithm = self.public.algorithm();
        work(&self.place, |session| sallyport_pkcs11::sign(session, &self.id, algorithm, scheme, message))
    }
}

fn base16ct(text: &str, into: &mut [u8; 16]) -> Option<()> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in into.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(())
}

impl KeyStore for TokenKey {
    fn public_key(&self) -> PublicKey {
        self.public.clone()
    }

    fn request(&self, name: &str, _: &dyn SecureRandom) -> Result<Vec<u8>> {
        self.public.request(name, |info| self.sign(Scheme::Certificates, info))
    }

    fn tls(&self) -> Result<Arc<dyn SigningKey>> {
        Ok(Arc::new(tls::TlsKey(self.clone())))
    }

    fn pem(&self) -> Zeroizing<String> {
        let (uri, id) = (&self.place, self.handle());
        let public = pem::encode("PUBLIC KEY", self.public.spki_der());
        Zeroizing::new(format!("{HEAD}{uri}\n{ID}{id}\n{}", *public))
    }

    fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        Err(Error::new(
            Kind::Usage,
            "the key of this machine is in a token and cannot leave it",
            "use strongSwan on this machine; for another one `sallyport cert issue` makes a key that can",
        ))
    }

    fn token(&self) -> Option<&TokenKey> {
        Some(self)
    }

    fn destroy(&self) -> Result {
        work(&self.place, |session| sallyport_pkcs11::destroy(session, &self.id))
    }
}

fn work<T>(place: &TokenPlace, work: impl FnOnce(&Session) -> core::result::Result<T, Problem>) -> Result<T> {
    let at = Place { module: Path::new(&place.module), token: &place.token };
    let done = sallyport_pkcs11::with(at, &pin(place)?, work);
    done.and_then(|worked| worked).map_err(|problem| failed(place, &problem))
}

/// What the token said, with what to do.
fn failed(place: &TokenPlace, problem: &Problem) -> Error {
    let remedy = match problem.trouble {
        Trouble::Module => "install the token's PKCS #11 module, and name it with module-path=",
        Trouble::Pin => "correct the PIN in its file before the token locks itself after a few wrong ones",
        Trouble::Locked => "unlock the token as its security officer",
        Trouble::NoToken => "plug it in, or correct token=",
        Trouble::Several => "give one of them another label",
        Trouble::NoKey => "if it cannot be brought back, enroll anew",
        Trouble::CannotDo => "try another kind of key, such as --key rsa-2048",
        Trouble::Other => "see that the token works (pkcs11-tool --module MODULE --test --login)",
    };
    Error::machine(format!("token {:?}: {problem}", place.token), remedy)
}

/// The first line of the file with the PIN.
fn pin(place: &TokenPlace) -> Result<Zeroizing<Vec<u8>>> {
    let path = Path::new(&place.pin_file);
    let content = files::read(path)?.ok_or_else(|| {
        Error::machine(format!("there is no file with the PIN: {}", path.display()), "pass --pin-file FILE")
    })?;
    let mode = std::fs::metadata(path).map_err(|e| Error::file("read", path, &e))?.permissions().mode();
    if mode & 0o077 != 0 {
        let remedy = "take the permission away (chmod 600) and consider whether they did";
        return Err(Error::machine(format!("others may read {}", path.display()), remedy));
    }
    let line = content.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let plain = core::str::from_utf8(line).is_ok_and(|pin| !pin.is_empty() && !pin.chars().any(char::is_control));
    if !plain || line.len() > 128 {
        let remedy = "1 to 128 bytes of UTF-8 without control characters are expected on its first line";
        return Err(Error::machine(format!("{} holds no PIN", path.display()), remedy));
    }
    Ok(Zeroizing::new(line.to_vec()))
}

impl Folder {
    /// Keeps a PIN in the folder, for the owner only; where it is, as the machine names it.
    pub fn keep_pin(&self, pin: &[u8]) -> Result<String> {
        let path = self.path().join(crate::folder::PIN);
        files::put(&path, files::PRIVATE, pin)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Whether it keeps one.
    pub fn kept_pin(&self) -> Option<String> {
        let path = self.path().join(crate::folder::PIN);
        path.exists().then(|| path.to_string_lossy().into_owned())
    }

    /// Makes the token of the TPM for this machine, unless there is one: its PINs are random, that of the user is kept here. The
    /// other opens nothing and is forgotten.
    pub fn make_token(&self, place: &TokenPlace, rng: &dyn SecureRandom) -> Result<TokenPlace> {
        let mut random = Zeroizing::new([0_u8; 30]);
        rng.fill(random.as_mut_slice()).map_err(|_| Error::machine("the random source failed", ""))?;
        let text = |bytes: &[u8]| Zeroizing::new(Base64UrlUnpadded::encode_string(bytes));
        let (so_pin, pin) = (text(&random[..15]), text(&random[15..]));
        let kept = self.kept_pin();
        // The PIN first: a token whose PIN nobody knows is of no use.
        let pin_file = match &kept {
            Some(path) => path.clone(),
            None => self.keep_pin(pin.as_bytes())?,
        };
        let place = TokenPlace { pin_file, ..place.clone() };
        let pin = self::pin(&place)?;
        let at = Place { module: Path::new(&place.module), token: &place.token };
        let made = sallyport_pkcs11::make_token(at, so_pin.as_bytes(), &pin).map_err(|p| failed(&place, &p))?;
        if !made && kept.is_none() {
            files::remove(Path::new(&place.pin_file))?;
            return Err(Error::new(
                Kind::Usage,
                format!("there is a token {:?} already, and its PIN is not known here", place.token),
                "pass --pin-file FILE with its PIN",
            ));
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_where_the_key_is_and_no_more() {
        let public = sallyport_ca::KeyPair::generate(KeyAlgorithm::EcdsaP256, &sallyport_ca::SystemRandom::new());
        let place = "pkcs11:token=vpn?module-path=/l.so&pin-source=file:/etc/pin".parse().unwrap();
        let key = TokenKey { place, id: [0xab; 16], public: public.unwrap().public_key() };
        let text = key.pem();
        assert!(text.contains("\nid: abab") && !text.contains("PRIVATE"), "{}", *text);
        let again = TokenKey::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!((again.place, again.id, again.public), (key.place.clone(), key.id, key.public.clone()));
        assert!(TokenKey::parse(b"-----BEGIN PRIVATE KEY-----").is_none());
        for bad in [text.replace("id: ab", "id: g"), text.replace("id: ", "ip: "), text.replace("PUBLIC", "PUBLISH")] {
            assert!(TokenKey::parse(bad.as_bytes()).unwrap().is_err());
        }
        assert!(key.pkcs8().unwrap_err().cause.contains("cannot leave"));
    }

    #[test]
    fn a_pin_is_the_first_line_of_a_file_of_ones_own() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("pin");
        let place = TokenPlace { token: "t".into(), module: "/m".into(), pin_file: path.to_str().unwrap().into() };
        assert!(pin(&place).unwrap_err().remedy.contains("--pin-file"));
        files::put(&path, 0o600, b"12 34\r\nmore").unwrap();
        assert_eq!(*pin(&place).unwrap(), b"12 34");
        files::put(&path, 0o640, b"1234").unwrap();
        assert!(pin(&place).unwrap_err().remedy.contains("chmod 600"));
        for bad in [b"".as_slice(), b"\n1234", b"12\x1b34", b"\xff", &[b'1'; 200]] {
            files::put(&path, 0o600, bad).unwrap();
            assert!(pin(&place).is_err());
        }
    }
}
