// pgjdbc: unnamed statements, named ones from the fifth run on, portals with a row limit; run from its source.

import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.Objects;

class CheckJdbc {
    static final String TRACEPARENT = System.getenv("TRACEPARENT");
    static final String OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    public static void main(String[] arguments) throws SQLException {
        try (var connection = connect("")) {
            var double_ = "SELECT ?::int * 2, current_query()";
            try (var statement = connection.prepareStatement(double_)) {
                for (int number = 0; number < 20; number++) {
                    statement.setInt(1, number);
                    var row = statement.executeQuery();
                    row.next();
                    check("run " + number + " of a statement that becomes prepared", row.getInt(1), number * 2);
                    check("untouched", row.getString(2), "SELECT $1::int * 2, current_query()");
                }
            }
            check("the trace of the URL", value(connection, "SHOW pgspan.traceparent"), TRACEPARENT);

            connection.setAutoCommit(false);
            try (var set = connection.prepareStatement("SELECT set_config('pgspan.traceparent', ?, ?)")) {
                for (int run = 0; run < 10; run++) {
                    set.setString(1, OTHER);
                    set.setBoolean(2, true);
                    var row = set.executeQuery();
                    row.next();
                    check("the trace of a transaction, run " + run, row.getString(1), OTHER);
                    check("it is set", value(connection, "SELECT current_setting('pgspan.traceparent')"), OTHER);
                    connection.commit();
                    check("it ends with it", value(connection, "SHOW pgspan.traceparent"), TRACEPARENT);
                }
            }
            try (var statement = connection.createStatement()) {
                statement.setFetchSize(10);
                var rows = statement.executeQuery("SELECT generate_series(1, 55)");
                int count = 0;
                while (rows.next()) count++;
                check("a portal, ten rows at a time", count, 55);
                var settings = statement.executeQuery("SHOW pgspan.traceparent");
                check("a setting by a portal with a row limit", settings.next() && !settings.next(), true);
            }
            var savepoint = connection.setSavepoint();
            try {
                value(connection, "SELECT nosuch");
                check("an error", "none", "one");
            } catch (SQLException error) {
                check("an error's code", error.getSQLState(), "42703");
            }
            try {
                value(connection, "SHOW pgspan.traceparent");
                check("a failed transaction", "goes on", "is refused");
            } catch (SQLException error) {
                check("a failed transaction", error.getSQLState(), "25P02");
            }
            connection.rollback(savepoint);
            check("after going back to a savepoint", value(connection, "SELECT 'still here'"), "still here");
            connection.rollback();

            connection.setAutoCommit(true);
            try (var statement = connection.createStatement()) {
                for (int number = 0; number < 50; number++) statement.addBatch("SELECT " + number);
                statement.executeBatch();
                statement.execute("SET application_name = '" + OTHER + "'");
            }
            check("a traceparent by application_name", value(connection, "SHOW pgspan.traceparent"), OTHER);
        }
        try (var connection = connect("&preferQueryMode=simple")) {
            var query = value(connection, "SELECT current_query()");
            check("a simple query carries the trace", query.contains(TRACEPARENT), true);
        }
    }

    static Connection connect(String more) throws SQLException {
        var options = URLEncoder.encode("-c pgspan.traceparent=" + TRACEPARENT, StandardCharsets.UTF_8);
        var address = System.getenv("PROXY_HOST") + ":" + System.getenv("PROXY_PORT");
        return DriverManager.getConnection("jdbc:postgresql://" + address + "/app?options=" + options + more, "app", "sesame");
    }

    static String value(Connection connection, String sql) throws SQLException {
        try (var statement = connection.createStatement(); var rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getString(1);
        }
    }

    static void check(String what, Object actual, Object expected) {
        if (!Objects.equals(actual, expected)) {
            System.out.println("✗ " + what + ": " + actual + " instead of " + expected);
            System.exit(1);
        }
        System.out.println("✓ " + what);
    }
}
