// Validates chains by Java's own CertPathValidator: `java Validate.java FILE`. Each line of FILE is
// NAME|MILLISECONDS|ROOT|[LIST,LIST...]|LEAF,ISSUER... with files in DER; each line of the answer is NAME and `good` or why not.

import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.cert.*;
import java.util.*;

class Validate {
    static final CertificateFactory FACTORY;

    static {
        try {
            FACTORY = CertificateFactory.getInstance("X.509");
        } catch (CertificateException e) {
            throw new IllegalStateException(e);
        }
    }

    static X509Certificate certificate(String file) throws Exception {
        try (InputStream in = Files.newInputStream(Path.of(file))) {
            return (X509Certificate) FACTORY.generateCertificate(in);
        }
    }

    static CRL list(String file) throws Exception {
        try (InputStream in = Files.newInputStream(Path.of(file))) {
            return FACTORY.generateCRL(in);
        }
    }

    public static void main(String[] arguments) throws Exception {
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] fields = line.split("\\|", -1);
            List<X509Certificate> chain = new ArrayList<>();
            for (String file : fields[4].split(",")) {
                chain.add(certificate(file));
            }
            List<CRL> lists = new ArrayList<>();
            for (String file : fields[3].split(",")) {
                if (!file.isEmpty()) {
                    lists.add(list(file));
                }
            }
            PKIXParameters settings = new PKIXParameters(Set.of(new TrustAnchor(certificate(fields[2]), null)));
            settings.setDate(new Date(Long.parseLong(fields[1])));
            settings.setRevocationEnabled(true);
            settings.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(lists)));
            String answer = "good";
            try {
                CertPathValidator.getInstance("PKIX").validate(FACTORY.generateCertPath(chain), settings);
            } catch (CertPathValidatorException e) {
                answer = e.getReason() + " " + e.getMessage();
            }
            System.out.println(fields[0] + " " + answer);
        }
    }
}
