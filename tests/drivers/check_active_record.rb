# ActiveRecord: prepared statements by default, texts without them, query log tags, a pool.

require "active_record"

TRACEPARENT = ENV.fetch("TRACEPARENT")
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
QUERY = "SELECT current_query()"

# Ends the program where a thing is not as it should be.
def check(what, actual, expected)
  abort "✗ #{what}: #{actual.inspect} instead of #{expected.inspect}" if actual != expected
  puts "✓ #{what}"
end

def connect(settings = {})
  ActiveRecord::Base.establish_connection({
    adapter: "postgresql", host: ENV.fetch("PROXY_HOST"), port: ENV.fetch("PROXY_PORT"), database: "app", username: "app",
    password: "sesame", pool: 8, options: "-c pgspan.traceparent=#{TRACEPARENT}"
  }.merge(settings))
  ActiveRecord::Base.connection
end

class DriverRecord < ActiveRecord::Base
  def self.told(id)
    where(id: id).pluck(Arel.sql("current_query()")).first
  end
end

connection = connect
connection.create_table(:driver_records, force: true) { |table| table.string :name }
DriverRecord.insert_all!((1..50).map { |number| { name: "record #{number}" } })
first = DriverRecord.first
check("rows", [first.name, DriverRecord.count], ["record 1", 50])
3.times { check("a prepared statement is untouched", DriverRecord.told(first.id).include?("traceparent"), false) }
text = ->(connection) { connection.execute(QUERY).getvalue(0, 0) }
check("a text carries the trace", text.(connection).include?(TRACEPARENT), true)

8.times do
  ActiveRecord::Base.transaction do
    ActiveRecord::Base.connection.exec_query("SELECT set_config('pgspan.traceparent', $1, true)", "trace", [OTHER])
    check("a trace for a transaction", text.(connection).include?(OTHER), true)
  end
end
check("and no longer", text.(connection).include?(OTHER), false)

begin
  connection.execute("SELECT nosuch")
rescue ActiveRecord::StatementInvalid => error
  check("an error points at the own text", error.message.include?("LINE 1: SELECT nosuch\n               ^"), true)
end

sums = 16.times.map do |number|
  Thread.new { ActiveRecord::Base.connection_pool.with_connection { DriverRecord.where("id <= ?", number).count } }
end
check("more threads than servers", sums.map(&:value), (0..15).to_a)
connection.drop_table(:driver_records)

connection = connect(prepared_statements: false)
check("without prepared statements", connection.select_value("SELECT current_setting('pgspan.traceparent')"), TRACEPARENT)
