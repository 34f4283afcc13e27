package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/fluent/fluent-logger-golang/fluent"
	"github.com/miekg/dns"
)

const (
	tag = "dns"
	// bufferedMessages are waited for by nobody: beyond them the logger drops, and we count.
	bufferedMessages = 1 << 16
)

// transaction is what the gateway knows of one exchange: of what a record of tap53 holds, the part
// that a program can say without looking at packets.
type transaction struct {
	ID                 string   `json:"record_id"`
	Node               string   `json:"node"`
	Pod                string   `json:"server_pod_name"`
	QueryTime          string   `json:"query_time"`
	LatencyNs          int64    `json:"latency_ns"`
	Transport          string   `json:"transport"`
	ClientAddress      string   `json:"client_address"`
	ClientPort         int      `json:"client_port"`
	QuerySize          int      `json:"query_size"`
	ResponseSize       int      `json:"response_size"`
	DNSID              uint16   `json:"dns_id"`
	Opcode             string   `json:"opcode"`
	RecursionDesired   bool     `json:"recursion_desired"`
	Authoritative      bool     `json:"authoritative"`
	Truncated          bool     `json:"truncated"`
	RecursionAvailable bool     `json:"recursion_available"`
	Name               string   `json:"qname"`
	Type               string   `json:"qtype"`
	Class              string   `json:"qclass"`
	Rcode              string   `json:"rcode"`
	Answers            []answer `json:"answers"`
	AuthorityCount     int      `json:"authority_count"`
	AdditionalCount    int      `json:"additional_count"`
}

type answer struct {
	Name string `json:"name"`
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`
	Data string `json:"rdata"`
}

// reporter pushes transactions to the collector without making the gateway wait.
type reporter struct {
	logger            *fluent.Fluent
	node, pod         string
	reported, dropped atomic.Uint64
}

func dial(socket string) (*reporter, error) {
	logger, err := fluent.New(fluent.Config{
		FluentNetwork: "unix", FluentSocketPath: socket,
		Async: true, BufferLimit: bufferedMessages,
	})
	if err != nil {
		return nil, fmt.Errorf("connect to the collector at %s: %w", socket, err)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("this node's name: %w", err)
	}
	return &reporter{logger: logger, node: host, pod: fmt.Sprintf("gateway-%d", os.Getpid())}, nil
}

func (r *reporter) report(client net.Addr, query, response *dns.Msg, began time.Time) {
	number := r.reported.Add(1)
	text, err := json.Marshal(r.describe(number, client.(*net.UDPAddr), query, response, began))
	if err == nil {
		err = r.logger.Post(tag, map[string]string{"log": string(text)})
	}
	if err != nil {
		r.dropped.Add(1)
	}
}

func (r *reporter) describe(
	number uint64, client *net.UDPAddr, query, response *dns.Msg, began time.Time,
) transaction {
	t := transaction{
		ID: fmt.Sprintf("%s-%d", r.pod, number), Node: r.node, Pod: r.pod,
		QueryTime: began.UTC().Format(time.RFC3339Nano), LatencyNs: time.Since(began).Nanoseconds(),
		Transport: "UDP", ClientAddress: client.IP.String(), ClientPort: client.Port,
		QuerySize: query.Len(), ResponseSize: response.Len(),
		DNSID: query.Id, Opcode: dns.OpcodeToString[query.Opcode],
		RecursionDesired: query.RecursionDesired, Authoritative: response.Authoritative,
		Truncated: response.Truncated, RecursionAvailable: response.RecursionAvailable,
		Rcode:          dns.RcodeToString[response.Rcode],
		AuthorityCount: len(response.Ns), AdditionalCount: len(response.Extra),
	}
	if len(query.Question) > 0 {
		question := query.Question[0]
		t.Name, t.Type = question.Name, dns.TypeToString[question.Qtype]
		t.Class = dns.ClassToString[question.Qclass]
	}
	for _, record := range response.Answer {
		t.Answers = append(t.Answers, describeRecord(record))
	}
	return t
}

func describeRecord(record dns.RR) answer {
	header := record.Header()
	data := ""
	if a, is := record.(*dns.A); is {
		data = a.A.String()
	}
	return answer{header.Name, dns.TypeToString[header.Rrtype], header.Ttl, data}
}

// close sends what waits, and says what became of all.
func (r *reporter) close() {
	err := r.logger.Close()
	log.Printf("reported=%d dropped=%d error=%v", r.reported.Load(), r.dropped.Load(), err)
}
