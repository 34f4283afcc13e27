// Command collector is the OpenTelemetry Collector with its published receiver of OTLP and check of
// bearer tokens, put together as its own builder does, and an exporter of ours that appends each
// request to a file, as a line of JSON. While another file exists, the exporter is busy instead.
package main

import (
	"context"
	"errors"
	"io/fs"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/bearertokenauthextension"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func main() {
	command := otelcol.NewCommand(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "collector", Version: "0.165"},
		Factories: factories,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{
			ResolverSettings: confmap.ResolverSettings{
				ProviderFactories: []confmap.ProviderFactory{
					// The scheme of ${NAME}, which the resolver insists on.
					envprovider.NewFactory(), fileprovider.NewFactory(),
				},
			},
		},
	})
	if err := command.Execute(); err != nil {
		log.Fatal(err)
	}
}

func factories() (factories otelcol.Factories, err error) {
	factories.Telemetry = otelconftelemetry.NewFactory()
	factories.Extensions, err = otelcol.MakeFactoryMap[extension.Factory](
		bearertokenauthextension.NewFactory())
	if err != nil {
		return factories, err
	}
	factories.Receivers, err = otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory())
	if err != nil {
		return factories, err
	}
	factories.Exporters, err = otelcol.MakeFactoryMap[exporter.Factory](linesFactory())
	return factories, err
}

// linesConfig names the file to append to, and the one that makes the exporter busy. It has the time
// after which to retry, such as "2s".
type linesConfig struct {
	Path string `mapstructure:"path"`
	Busy string `mapstructure:"busy"`
}

func linesFactory() exporter.Factory {
	create := func(
		ctx context.Context, settings exporter.Settings, config component.Config,
	) (exporter.Metrics, error) {
		file, err := os.OpenFile(
			config.(*linesConfig).Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		lines := &lines{file: file, busy: config.(*linesConfig).Busy}
		return exporterhelper.NewMetrics(ctx, settings, config, lines.push)
	}
	return exporter.NewFactory(
		component.MustNewType("lines"),
		func() component.Config { return &linesConfig{} },
		exporter.WithMetrics(create, component.StabilityLevelDevelopment))
}

// lines appends requests to a file, each with one write.
type lines struct {
	lock sync.Mutex
	file *os.File
	busy string
}

// throttled returns the error of a busy backend, which the receiver answers with 503 and Retry-After; nil
// if the exporter is not busy.
func (lines *lines) throttled() error {
	text, err := os.ReadFile(lines.busy)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	after, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(after)}
	busy, err := status.New(codes.Unavailable, "the backend is busy").WithDetails(retry)
	if err != nil {
		return err
	}
	return busy.Err()
}

func (lines *lines) push(_ context.Context, metrics pmetric.Metrics) error {
	if err := lines.throttled(); err != nil {
		return err
	}
	line, err := (&pmetric.JSONMarshaler{}).MarshalMetrics(metrics)
	if err != nil {
		return err
	}
	lines.lock.Lock()
	defer lines.lock.Unlock()
	_, err = lines.file.Write(append(line, '\n'))
	return err
}
