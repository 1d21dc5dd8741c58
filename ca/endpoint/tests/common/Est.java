// EST by Bouncy Castle: java -cp JARS Est.java HOST:PORT ROOT.pem TOKEN WRONG PENDING
// It says a token only when it is asked for one (401). PENDING may be empty: there is none, and it waits for an operator.
// Writes first.pem and second.pem, and says a line for each step.
import java.io.*;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.ECGenParameterSpec;
import java.time.Instant;
import java.util.*;
import javax.net.ssl.*;
import javax.security.auth.x500.X500Principal;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.est.*;
import org.bouncycastle.est.jcajce.*;
import org.bouncycastle.openssl.jcajce.JcaPEMWriter;
import org.bouncycastle.operator.jcajce.*;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;

public class Est {
    static String server;
    static X509TrustManager trust;

    static ESTService service(KeyManager[] keys) throws Exception {
        JsseESTServiceBuilder builder = new JsseESTServiceBuilder(server, trust)
            .withHostNameAuthorizer(new JsseDefaultHostnameAuthorizer(null))
            .withTimeout(60_000);
        for (KeyManager key : keys) builder.withKeyManager(key);
        return builder.build();
    }

    static KeyPair key() throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(new ECGenParameterSpec("secp256r1"));
        return generator.generateKeyPair();
    }

    static PKCS10CertificationRequest request(KeyPair key) throws Exception {
        return new JcaPKCS10CertificationRequestBuilder(new X500Principal("CN=machine"), key.getPublic())
            .build(new JcaContentSignerBuilder("SHA256withECDSA").build(key.getPrivate()));
    }

    static X509Certificate only(EnrollmentResponse response, KeyPair key, String file) throws Exception {
        Collection<X509CertificateHolder> all = response.getStore().getMatches(null);
        X509Certificate certificate = new JcaX509CertificateConverter().getCertificate(all.iterator().next());
        if (all.size() != 1 || !certificate.getPublicKey().equals(key.getPublic())) throw new IOException("not ours");
        try (JcaPEMWriter out = new JcaPEMWriter(new FileWriter(file))) { out.writeObject(certificate); }
        return certificate;
    }

    static ESTAuth token(String token) throws Exception {
        return new JcaHttpAuthBuilder("anyone", token.toCharArray()).build();
    }

    public static void main(String[] words) throws Exception {
        server = words[0];
        KeyStore roots = KeyStore.getInstance("PKCS12");
        roots.load(null, null);
        try (InputStream pem = Files.newInputStream(Path.of(words[1]))) {
            roots.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(roots);
        trust = (X509TrustManager) factory.getTrustManagers()[0];
        ESTService stranger = service(new KeyManager[0]);

        CACertsResponse authorities = stranger.getCACerts();
        System.out.println("cacerts " + authorities.getCertificateStore().getMatches(null).size());
        for (ASN1ObjectIdentifier oid : stranger.getCSRAttributes().getAttributesResponse().getRequirements())
            System.out.println("csrattr " + oid);

        KeyPair first = key(), second = key();
        X509Certificate present = only(stranger.simpleEnroll(false, request(first), token(words[2])), first, "first.pem");
        KeyStore own = KeyStore.getInstance("PKCS12");
        own.load(null, null);
        own.setKeyEntry("own", first.getPrivate(), new char[0], new java.security.cert.Certificate[] { present });
        KeyManagerFactory keys = KeyManagerFactory.getInstance("SunX509");
        keys.init(own, new char[0]);
        only(service(keys.getKeyManagers()).simpleEnroll(true, request(second), null), second, "second.pem");

        try {
            stranger.simpleEnroll(false, request(key()), token(words[3]));
        } catch (ESTException refused) {
            System.out.println("refused " + refused.getStatusCode());
        }
        EnrollmentResponse later = stranger.simpleEnroll(false, request(key()), token(words[4]));
        System.out.println("later " + (!later.isCompleted() && later.getNotBefore() > Instant.now().toEpochMilli()));
    }
}
