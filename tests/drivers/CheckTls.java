// pgjdbc over TLS; run from its source.

import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.Properties;

class CheckTls {
    public static void main(String[] arguments) throws SQLException {
        var settings = new Properties();
        settings.setProperty("user", "scram_user");
        settings.setProperty("password", "sesame");
        settings.setProperty("sslmode", "verify-full");
        settings.setProperty("sslrootcert", System.getenv("CA_FILE"));
        var url = "jdbc:postgresql://localhost:" + System.getenv("PROXY_PORT") + "/app";
        try (var connection = DriverManager.getConnection(url, settings);
                var statement = connection.createStatement();
                var row = statement.executeQuery("SELECT current_user")) {
            row.next();
            if (!row.getString(1).equals("scram_user")) throw new AssertionError(row.getString(1));
            System.out.println("✓ verify-full");
        }
        settings.setProperty("password", "wrong");
        try (var connection = DriverManager.getConnection(url, settings)) {
            throw new AssertionError("a wrong password is let in");
        } catch (SQLException error) {
            if (!error.getSQLState().equals("28P01")) throw error;
            System.out.println("✓ a wrong password");
        }
    }
}
