// Command gateway is a small DNS gateway: it answers A queries over UDP from its own data, as a
// gateway answers from its cache. With -log it reports each transaction the old way: marshalled to
// JSON and pushed to a collector over the Fluentd forward protocol.
package main

import (
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	answers = 3
	ttl     = 300
)

func main() {
	listen := flag.String("listen", "127.0.0.1:53", "address and port")
	socket := flag.String("log", "", "Unix socket of the collector; empty: report nothing")
	flag.Parse()
	log.SetFlags(0)
	if err := serve(*listen, *socket); err != nil {
		log.Fatal(err)
	}
}

func serve(listen, socket string) error {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) { respond(w, query) })
	if socket != "" {
		reporter, err := dial(socket)
		if err != nil {
			return err
		}
		defer reporter.close()
		handler = func(w dns.ResponseWriter, query *dns.Msg) {
			began := time.Now()
			reporter.report(w.RemoteAddr(), query, respond(w, query), began)
		}
	}
	server := &dns.Server{Addr: listen, Net: "udp", Handler: handler}
	server.NotifyStartedFunc = func() { log.Printf("gateway ready on %s", listen) }
	go stopOnSignal(server)
	return server.ListenAndServe()
}

func stopOnSignal(server *dns.Server) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	<-signals
	server.Shutdown()
}

// respond answers query and returns the response.
func respond(w dns.ResponseWriter, query *dns.Msg) *dns.Msg {
	response := new(dns.Msg)
	response.SetReply(query)
	response.Authoritative = true
	if len(query.Question) == 1 && query.Question[0].Qtype == dns.TypeA {
		header := dns.RR_Header{
			Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl,
		}
		for host := byte(1); host <= answers; host++ {
			address := net.IPv4(203, 0, 113, host)
			response.Answer = append(response.Answer, &dns.A{Hdr: header, A: address})
		}
	}
	// A client that has gone away is no error of the gateway's.
	_ = w.WriteMsg(response)
	return response
}
