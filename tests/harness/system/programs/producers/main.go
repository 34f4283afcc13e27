// Command producers is a fleet of agents as a broker sees it: many idempotent producers, each with
// connections of its own, with tap53's default settings.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// report is what became of the records, as one line of JSON.
type report struct {
	Producers int     `json:"producers"`
	ConnectS  float64 `json:"connect_s"`
	Acked     uint64  `json:"acknowledged"`
	Failed    uint64  `json:"failed"`
	Seconds   float64 `json:"seconds"`
	MeanMs    float64 `json:"mean_ms"`
}

type settings struct {
	broker, topic string
	linger        time.Duration
	value         []byte
}

func main() {
	var s settings
	flag.StringVar(&s.broker, "broker", "", "host:port")
	flag.StringVar(&s.topic, "topic", "", "topic")
	flag.DurationVar(&s.linger, "linger", 20*time.Millisecond, "how long a record waits for others")
	producers := flag.Int("producers", 1, "producers")
	rate := flag.Float64("rate", 1, "records a second of each producer")
	duration := flag.Duration("for", time.Second, "how long they produce")
	size := flag.Int("bytes", 100, "bytes of a record")
	flag.Parse()
	log.SetFlags(0)
	s.value = make([]byte, *size)
	for i := range s.value {
		s.value[i] = byte(rand.IntN(64))
	}
	fleet, took, err := connect(s, *producers)
	if err != nil {
		log.Fatal(err)
	}
	// The reader measures from this line on.
	log.Printf("producers connected")
	r := produce(fleet, s, *rate, *duration)
	r.Producers, r.ConnectS = *producers, took.Seconds()
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		log.Fatal(err)
	}
}

// connect starts the producers and has one record of each acknowledged.
func connect(s settings, count int) (fleet []*kgo.Client, took time.Duration, err error) {
	began := time.Now()
	fleet = make([]*kgo.Client, count)
	errors := make(chan error, count)
	for i := range fleet {
		go func() {
			var err error
			fleet[i], err = kgo.NewClient(
				kgo.SeedBrokers(s.broker), kgo.DefaultProduceTopic(s.topic),
				kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(s.linger),
				kgo.RecordPartitioner(kgo.StickyPartitioner()), kgo.ClientID("tap53"),
			)
			if err == nil {
				record := kgo.Record{Value: s.value}
				err = fleet[i].ProduceSync(context.Background(), &record).FirstErr()
			}
			errors <- err
		}()
	}
	for range fleet {
		if one := <-errors; one != nil {
			err = one
		}
	}
	return fleet, time.Since(began), err
}

// produce has all producers produce at a steady rate, each at times of its own.
func produce(fleet []*kgo.Client, s settings, rate float64, duration time.Duration) report {
	var acked, failed, waited atomic.Uint64
	var running sync.WaitGroup
	interval := time.Duration(float64(time.Second) / rate)
	began := time.Now()
	for _, client := range fleet {
		running.Go(func() {
			time.Sleep(rand.N(interval))
			ticker := time.NewTicker(interval)
			defer ticker.Stop()
			for time.Since(began) < duration {
				sent := time.Now()
				record := kgo.Record{Value: s.value}
				client.Produce(context.Background(), &record, func(_ *kgo.Record, err error) {
					if err != nil {
						failed.Add(1)
						return
					}
					acked.Add(1)
					waited.Add(uint64(time.Since(sent).Microseconds()))
				})
				<-ticker.C
			}
			_ = client.Flush(context.Background())
		})
	}
	running.Wait()
	mean := float64(waited.Load()) / 1e3 / float64(max(acked.Load(), 1))
	return report{
		Acked: acked.Load(), Failed: failed.Load(), Seconds: time.Since(began).Seconds(), MeanMs: mean,
	}
}
