// Command watches is a fleet of agents as the API server sees it: each with a connection of its own,
// on which it lists and then watches what an agent does.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

// connecting at a time; a fleet's rollout is slower.
const connecting = 50

type agent struct {
	client     http.Client
	url, token string
}

func main() {
	url := flag.String("url", "", "of the API server")
	caFile := flag.String("ca", "", "file of its authority")
	tokenFile := flag.String("token", "", "file of a token")
	agents := flag.Int("agents", 1, "agents")
	flag.Parse()
	log.SetFlags(0)
	if err := watchAll(*url, *caFile, *tokenFile, *agents); err != nil {
		log.Fatal(err)
	}
	// The reader measures from this line on, and ends this process.
	log.Printf("agents watch")
	select {}
}

func watchAll(url, caFile, tokenFile string, agents int) error {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	turns := make(chan struct{}, connecting)
	failures := make(chan error, agents)
	var running sync.WaitGroup
	for number := range agents {
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			transport := http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
			}
			a := agent{http.Client{Transport: &transport}, url, string(token)}
			if err := a.watch(number); err != nil {
				failures <- fmt.Errorf("agent %d: %w", number, err)
			}
		})
	}
	running.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

// watch opens the watches of an agent with scope node.
func (a *agent) watch(number int) error {
	node := fmt.Sprintf("fieldSelector=spec.nodeName%%3Dnode-%d", number)
	for _, list := range []string{"pods?" + node, "services?", "nodes?"} {
		version, err := a.list(list)
		if err != nil {
			return err
		}
		path := fmt.Sprintf("%s&watch=1&allowWatchBookmarks=true&resourceVersion=%s", list, version)
		response, err := a.get(path)
		if err != nil {
			return err
		}
		go func() { _, _ = io.Copy(io.Discard, bufio.NewReader(response.Body)) }()
	}
	return nil
}

func (a *agent) list(path string) (version string, err error) {
	response, err := a.get(path + "&resourceVersion=0")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	err = json.NewDecoder(response.Body).Decode(&list)
	return list.Metadata.ResourceVersion, err
}

func (a *agent) get(path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(
		context.Background(), http.MethodGet, a.url+"/api/v1/"+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	response, err := a.client.Do(request)
	if err == nil && response.StatusCode != http.StatusOK {
		response.Body.Close()
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return response, err
}
