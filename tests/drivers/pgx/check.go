// pgx: prepared statements behind names of its cache, the simple protocol, a pool, batches.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func main() {
	ctx := context.Background()
	traceparent := os.Getenv("TRACEPARENT")
	url := fmt.Sprintf("postgres://app:sesame@%s:%s/app?sslmode=disable", os.Getenv("PROXY_HOST"), os.Getenv("PROXY_PORT"))
	config, err := pgxpool.ParseConfig(url + "&pool_max_conns=8")
	must(err)
	config.ConnConfig.RuntimeParams["pgspan.traceparent"] = traceparent
	pool, err := pgxpool.ConnectConfig(ctx, config)
	must(err)
	defer pool.Close()

	query := "SELECT current_query()"
	text := func(row pgx.Row) (told string) {
		must(row.Scan(&told))
		return
	}
	for run := 0; run < 3; run++ {
		check("a prepared statement is untouched", text(pool.QueryRow(ctx, query)), query)
	}
	simple := text(pool.QueryRow(ctx, query, pgx.QuerySimpleProtocol(true)))
	check("the simple protocol carries the trace", strings.Contains(simple, traceparent), true)

	for run := 0; run < 8; run++ {
		tx, err := pool.Begin(ctx)
		must(err)
		_, err = tx.Exec(ctx, "SELECT set_config('pgspan.traceparent', $1, true)", other)
		must(err)
		simple := text(tx.QueryRow(ctx, query, pgx.QuerySimpleProtocol(true)))
		check("a trace for a transaction", strings.Contains(simple, other), true)
		must(tx.Commit(ctx))
	}
	simple = text(pool.QueryRow(ctx, query, pgx.QuerySimpleProtocol(true)))
	check("and no longer", strings.Contains(simple, other), false)

	batch := &pgx.Batch{}
	for number := 0; number < 20; number++ {
		batch.Queue("SELECT $1::int * 2", number)
	}
	results := pool.SendBatch(ctx, batch)
	doubled, wanted := []int{}, []int{}
	for number := 0; number < 20; number++ {
		var double int
		must(results.QueryRow().Scan(&double))
		doubled, wanted = append(doubled, double), append(wanted, number*2)
	}
	must(results.Close())
	check("a batch", doubled, wanted)

	_, err = pool.Exec(ctx, "SELECT nosuch")
	var refused *pgconn.PgError
	check("an error", errors.As(err, &refused), true)
	check("an error points at the own text", []interface{}{refused.Code, refused.Position}, []interface{}{"42703", int32(8)})
}

func must(err error) {
	if err != nil {
		fmt.Println("✗", err)
		os.Exit(1)
	}
}

// Ends the program where a thing is not as it should be.
func check(what string, actual, expected interface{}) {
	if !reflect.DeepEqual(actual, expected) {
		fmt.Printf("✗ %s: %v instead of %v\n", what, actual, expected)
		os.Exit(1)
	}
	fmt.Println("✓", what)
}
